"""What counting costs: texts that nobody has seen, the arithmetic, the tables; no promise of times."""

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.machine import Cores
from benchmarks.servers import ServerError
from benchmarks.targets import WEIR, targets
from benchmarks.tokens import hostile as hostile_bodies
from benchmarks.tokens import stalls
from benchmarks.tokens.costs import FIRST, SIZES, Cost, Costs, faults, table
from benchmarks.tokens.hostile import MEMBERS, MESSAGES, PAIRS, Hostile, body
from benchmarks.tokens.prose import ASSISTANT, TOOLS, TURNS, USER, Prose
from benchmarks.tokens.stalls import Stall, heading, line

ANYWHERE = Cores(frozenset(), frozenset())


@pytest.fixture(scope="module")
def prose() -> Prose:
    return Prose(1)


@pytest.fixture(scope="module")
def hostile(prose: Prose) -> Hostile:
    return Hostile(1, prose)


@pytest.mark.parametrize("characters", [1, 40, 1000, 300_000])
def test_a_text_has_as_many_characters_as_asked_for(prose: Prose, characters: int) -> None:
    assert len(prose.text(characters)) == characters


def test_no_two_texts_are_the_same(prose: Prose) -> None:
    texts = [prose.text(40) for _ in range(10_000)]
    assert len(set(texts)) == len(texts)


def test_the_same_seed_draws_the_same_texts() -> None:
    assert Prose(7).text(5000) == Prose(7).text(5000) != Prose(8).text(5000)


def test_prose_is_words_and_no_code_of_a_page(prose: Prose) -> None:
    text = prose.text(200_000)
    assert text.count(" ") > 20_000
    assert "```" not in text


def test_a_conversation_alternates_and_ends_with_a_question(prose: Prose) -> None:
    messages = prose.conversation()
    asked, answered = messages[::2], messages[1::2]
    assert (len(asked), len(answered)) == (TURNS, TURNS - 1)
    assert {(one["role"], len(one["content"])) for one in asked} == {("user", USER)}
    assert {(one["role"], len(one["content"])) for one in answered} == {("assistant", ASSISTANT)}


def test_tools_have_names_of_their_own(prose: Prose) -> None:
    assert len({tool["function"]["name"] for tool in prose.tools()}) == TOOLS


def test_every_hostile_text_is_new_and_about_as_large_as_asked_for(hostile: Hostile) -> None:
    texts = [hostile.text(kind, 60_000) for kind in hostile.kinds() for _ in range(20)]
    assert len(set(texts)) == len(texts)
    assert all(50_000 < len(text.encode()) <= 61_000 for text in texts)


def test_hostile_bodies_are_requests_and_each_has_a_name(hostile: Hostile) -> None:
    bodies = dict(hostile.bodies())
    assert len(bodies) == 2 * len(hostile.kinds()) + 5
    asked = {name: json.loads(make()) for name, make in bodies.items() if " MB of " not in name}
    assert {name: len(one["messages"]) for name, one in asked.items()} == {
        "a question": 1,
        "100,000 messages": MESSAGES,
        "2,000 pairs of calls": 3 * PAIRS,
        "25,000 tools": 1,
        "a schema that refers to itself": 1,
    }
    assert len(asked["25,000 tools"]["tools"]) == hostile_bodies.TOOLS
    parameters = asked["a schema that refers to itself"]["tools"][0]["function"]["parameters"]
    assert len(parameters["$defs"]["again"]["properties"]) == MEMBERS


def test_hostile_bodies_are_new_each_time(hostile: Hostile) -> None:
    for name, make in hostile.bodies():
        if " MB of " not in name:
            assert make() != make(), name


def test_each_text_is_counted_once_by_either_side_and_what_is_resent_no_more(prose: Prose) -> None:
    seen: Counter[str] = Counter()

    def encode(text: str) -> list[int]:
        seen[text] += 1
        return [0]

    costs = Costs(encode, prose, amount=0.01)
    measured = [next(each) for each in [costs.all()] for _ in SIZES[:3]]
    assert [len(cost.pairs) for cost in measured] == [2, 2, 2]
    assert set(seen.values()) == {2}
    assert {len(text) for text in seen} == {1000, 3000, 10_000}


def test_a_conversation_that_is_resent_is_counted_once(prose: Prose) -> None:
    seen: Counter[str] = Counter()

    def encode(text: str) -> list[int]:
        seen[text] += 1
        return [0]

    list(Costs(encode, prose, amount=0.01).all())
    first, last = 40, 2  # of a conversation: the times it is counted anew, and once more with a memory
    said = [times for text, times in seen.items() if len(text) in (USER, ASSISTANT)]
    assert (max(said), min(said)) == (first + 1, last)


def test_a_ratio_is_the_median_of_those_of_each_round() -> None:
    assert Cost("", [(1.0, 3.0), (10.0, 10.0), (100.0, 200.0)]).ratio == 2.0


def test_what_is_above_its_bar_is_a_fault() -> None:
    costs = [Cost("at", [(100.0, 115.0)], FIRST), Cost("above", [(100.0, 116.0)], FIRST), Cost("", [(1, 9)])]
    assert faults(costs) == ["above: 1.160 times that, 1.15 at most"]


def test_the_table_shows_medians_and_stands_in_columns() -> None:
    head, first, second = table(
        [Cost("a", [(1.0, 2.0), (3.0, 9.0), (4.0, 6.0)], 0.5), Cost("b", [(9999.0, 1.0)])]
    ).splitlines()
    assert first.split() == ["a", "3.0", "6.0", "2.000", "0.50"]
    assert second.split() == ["b", "9,999.0", "1.0", "0.000", "-"]
    assert len(head) == len(first) == len(second)


def test_a_stall_that_is_longer_than_the_aim_is_marked() -> None:
    marked = line(Stall("much", cpu=250.4, took=[300.0, 100.0, 200.0], stalls=[1.0, 25.1]))
    assert marked.split() == ["much", "250*", "25*", "200"]
    unmarked = line(Stall("little", cpu=None, took=[3.0], stalls=[25.0]))
    assert unmarked.split() == ["little", "-", "25", "3"]
    assert len(heading()) == len(marked) == len(unmarked)


def test_a_worker_is_asked_alone_and_with_somebody_beside(tmp_path: Path, hostile: Hostile) -> None:
    with targets([WEIR], folder=tmp_path, cores=ANYWHERE) as (weir,):
        found = stalls.measured(
            weir.server, "spaces", lambda: body([hostile.text("spaces", 100_000)]), requests=2
        )
        assert (len(found.took), len(found.stalls)) == (2, 2)
        assert all(wait > 0 for wait in found.stalls)
        with pytest.raises(ServerError, match="400"):
            stalls.measured(weir.server, "nothing", lambda: b"", requests=1)
