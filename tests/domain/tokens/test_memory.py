"""Memory keeps what was lately used and no text, and never grows beyond twice its size."""

import threading
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens.memory import Key, Memory, key_of

KEYS = st.integers(0, 30).map(lambda number: (number, number))


@given(size=st.integers(1, 8), uses=st.lists(st.tuples(KEYS, st.booleans()), max_size=80))
def test_the_last_ones_that_were_used_are_remembered(size: int, uses: list[tuple[Key, bool]]) -> None:
    memory, lately = Memory(size), OrderedDict[Key, int]()
    for key, asked in uses:
        if asked and memory.get(key) is None:
            assert key not in list(lately)[-size:]
            continue
        if not asked:
            memory.put(key, key[0])
        lately[key] = key[0]
        lately.move_to_end(key)
        assert len(memory) <= 2 * size
    for key in list(lately)[-size:][::-1]:
        assert key in (*memory._young, *memory._old)


def test_what_comes_makes_it_no_larger_than_twice_its_size() -> None:
    memory = Memory(100)
    for number in range(10_000):
        memory.put((number, 1), number)
        assert len(memory) <= 200
    assert [memory.get((number, 1)) for number in range(9_900, 10_000)] == list(range(9_900, 10_000))
    assert memory.get((9_000, 1)) is None


def test_what_is_asked_for_again_and_again_outlives_what_is_not() -> None:
    memory = Memory(10)
    memory.put((-1, 1), 7)
    for number in range(1_000):
        memory.put((number, 1), number)
        assert memory.get((-1, 1)) == 7


def test_texts_whose_bytes_are_the_same_have_keys_of_their_own() -> None:
    """Python's digest is one of bytes, of which a character may have one, two or four."""
    narrow, wide = "ab" * 32, "\u6261" * 32
    assert hash(narrow) == hash(wide)
    assert key_of(narrow) != key_of(wide)


def test_equal_texts_have_the_same_key() -> None:
    assert key_of("".join(["weir", "\ud83d"])) == key_of("weir\ud83d")


@pytest.mark.parametrize("size", [1, 50])
def test_several_threads_at_once_do_no_harm(size: int) -> None:
    memory, wrong, begin = Memory(size), list[object](), threading.Barrier(4)

    def use(first: int) -> None:
        begin.wait()
        try:
            for number in range(first, first + 20_000):
                key = (number % 300, 1)
                memory.put(key, key[0])
                if memory.get(key) not in (None, key[0]) or len(memory) > 2 * size + 2 * 4:
                    wrong.append(key)
        except Exception as error:  # whatever it is
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(serial * 70,)) for serial in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
