"""Learner: what is reserved for a completion is what such completions lately took."""

import itertools
import math
import random
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.learning import COLD, HALVING, LONGEST, SELDOM, Learner, edges
from service.domain.usage import MOST_TOKENS

KEY, MODEL = "ab12", "gpt-4o"
UNBOUNDED = 10**12  # declared so much that it never counts
LENGTHS: dict[str, Callable[[random.Random], int]] = {
    "always the same": lambda _: 300,
    "uniform": lambda rng: rng.randint(0, 4_000),
    "short": lambda rng: rng.randint(0, 30),
    "with a long tail": lambda rng: int(rng.lognormvariate(5.5, 1)),
    "of any magnitude": lambda rng: int(10 ** rng.uniform(0, 8)),
    "yes, no, or an essay": lambda rng: rng.choice([1, 1, 1, 1, 2, 2, 2, 2, 2, 3_000]),
    "rarely long": lambda rng: 90_000 if rng.random() < 1 / SELDOM else 5,
}


def taught(completions: Iterable[int], learner: Learner | None = None) -> Learner:
    learner = learner or Learner()
    for completion in completions:
        learner.learn(KEY, MODEL, completion)
    return learner


def expected(learner: Learner, model: str = MODEL) -> int | None:
    return learner.expect(KEY, model, UNBOUNDED)


def quantile(completions: list[int], seldom: float = 1 / SELDOM) -> int:
    """The least length that at most `seldom` lies above: sorted, each weighed by the halvings since."""
    last = len(completions) // HALVING
    aged = [(length, 0.5 ** (last - at // HALVING)) for at, length in enumerate(completions)]
    above, room = 0.0, seldom * math.fsum(weight for _, weight in aged)
    for length, weight in sorted(aged, reverse=True):
        above += weight
        if above > room:
            return length
    return 0


def test_with_few_observations_nothing_is_expected() -> None:
    learner = Learner()
    assert expected(learner) is None
    taught([300] * (COLD - 1), learner)
    assert expected(learner) is None
    taught([300], learner)
    assert expected(learner) is not None


@given(
    completions=st.lists(st.integers(0, MOST_TOKENS), min_size=COLD, max_size=60),
    declared=st.integers(0, MOST_TOKENS),
)
def test_never_more_is_expected_than_was_declared(completions: list[int], declared: int) -> None:
    learner = taught(completions)
    free = expected(learner)
    assert free is not None
    assert learner.expect(KEY, MODEL, declared) == min(declared, free)


def test_what_always_takes_300_is_expected_to_take_hardly_more() -> None:
    assert 300 <= (expected(taught([300] * 50)) or 0) <= 315


def test_empty_completions_are_legal() -> None:
    assert expected(taught([0] * COLD)) == 0
    assert expected(taught([300] + [0] * COLD)) == 0


def test_the_longest_completions_are_known_for_what_they_are() -> None:
    assert expected(taught([MOST_TOKENS] * COLD)) == MOST_TOKENS
    assert expected(taught([MOST_TOKENS + 1] * COLD)) == MOST_TOKENS


@given(length=st.integers(0, MOST_TOKENS))
def test_a_length_is_known_within_5_percent_and_never_understated(length: int) -> None:
    learned = expected(taught([length] * COLD))
    assert learned is not None
    assert length <= learned <= length * 1.05
    assert learned == length or length >= 20


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@given(seed=st.integers(0, 2**32), count=st.integers(COLD, 6 * HALVING))
def test_what_is_expected_is_the_quantile_of_what_is_remembered(
    lengths: Callable[[random.Random], int], seed: int, count: int
) -> None:
    rng = random.Random(seed)
    completions = [lengths(rng) for _ in range(count)]
    learned = expected(taught(completions))
    assert learned is not None
    rounding = 1e-4  # where exactly one in twenty lies above, it may fall on either side
    low, high = quantile(completions, 1 / SELDOM + rounding), quantile(completions, 1 / SELDOM - rounding)
    assert low <= learned <= high * 1.05


@pytest.mark.parametrize("before", [COLD, *range(5 * HALVING, 6 * HALVING, 10), 6 * HALVING - 1])
def test_longer_completions_are_followed_within_21(before: int) -> None:
    learner = taught([100] * before)
    assert (expected(learner) or 0) <= 105
    assert (expected(taught([3_000] * 21, learner)) or 0) >= 3_000


@pytest.mark.parametrize("before", [COLD, *range(5 * HALVING, 6 * HALVING, 10), 6 * HALVING - 1])
def test_shorter_completions_are_followed_within_880(before: int) -> None:
    learner = taught([3_000] * before)
    assert (expected(learner) or 0) >= 3_000
    assert (expected(taught([100] * 880, learner)) or 0) <= 105


@pytest.mark.parametrize(("long", "short", "ignored"), [(1, 19, True), (2, 37, False), (2, 38, True)])
def test_of_twenty_completions_one_may_take_more_than_is_expected(
    long: int, short: int, ignored: bool
) -> None:
    for completions in ([90_000] * long + [10] * short, [10] * short + [90_000] * long):
        assert (expected(taught(completions)) == 10) is ignored


def test_however_long_it_runs_the_same_is_expected() -> None:
    lengths = [random.Random(7).randint(0, 4_000) for _ in range(HALVING)]
    learner = taught(lengths * 20)
    settled = expected(learner)
    taught(itertools.chain.from_iterable(itertools.repeat(lengths, 1_500)), learner)
    assert expected(learner) == settled
    assert quantile(lengths) <= (settled or 0) <= quantile(lengths) * 1.05


@given(others=st.lists(st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from(["m1", "m2"]))))
def test_pairs_do_not_learn_from_each_other(others: list[tuple[str, str]]) -> None:
    learner = taught([300] * COLD)
    for credential, model in others:
        learner.learn(credential, model, 90_000)
    for credential, model in [("k1", MODEL), (KEY, "m1"), ("", KEY + MODEL), (MODEL, KEY)]:
        assert learner.expect(credential, model, UNBOUNDED) is None
    assert expected(learner) == expected(taught([300] * COLD))


def test_a_flood_of_models_forgets_those_that_had_no_completion_during_it() -> None:
    learner = Learner(most=100)
    for _ in range(COLD):
        learner.learn(KEY, "quiet", 300)
        learner.learn(KEY, "busy", 300)
    for number in range(150):
        learner.learn(KEY, f"random-{number}", 5)
        if number % 50 == 0:
            learner.learn(KEY, "busy", 300)
    assert expected(learner, "busy") is not None
    assert expected(learner, "quiet") is None


def test_to_be_asked_about_a_model_costs_no_memory_and_forgets_none() -> None:
    learner = Learner(most=1)
    taught([300] * COLD, learner)
    assert [expected(learner, f"random-{number}") for number in range(10)] == [None] * 10
    assert expected(learner) is not None


def test_random_models_do_not_grow_the_memory() -> None:
    tracemalloc.start()
    try:
        learner = Learner(most=512)
        for number in range(100_000):
            learner.learn(KEY, f"a-model-that-somebody-made-up-{number:010}", number)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held <= 512 * 2_000 + 50_000  # the buckets' edges


def test_names_too_long_are_not_remembered() -> None:
    learner = Learner()
    longest = "m" * LONGEST
    for credential, model in [(longest, longest), (longest + "m", MODEL), (KEY, longest + "m")]:
        for _ in range(COLD):
            learner.learn(credential, model, 300)
        known = learner.expect(credential, model, UNBOUNDED) is not None
        assert known == (credential == model == longest)


def test_buckets_are_few_and_each_within_5_percent() -> None:
    highest = edges()
    assert len(highest) == 327
    assert (highest[0], highest[-1]) == (0, MOST_TOKENS)
    assert all(below < top <= (below + 1) * 1.05 for below, top in itertools.pairwise(highest))
