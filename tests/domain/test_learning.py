"""Learner: what is reserved for a completion is what such completions lately took."""

import itertools
import math
import random
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.learning import COLD, HALVING, LONGEST, ONE_IN, Learner, edges
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
    "one in four long": lambda rng: 90_000 if rng.random() < 1 / ONE_IN else 5,
    "rarely long": lambda rng: 90_000 if rng.random() < 1 / 100 else 5,
}


def taught(completions: Iterable[int], learner: Learner | None = None) -> Learner:
    learner = learner or Learner()
    for completion in completions:
        learner.learn(KEY, MODEL, completion)
    return learner


def expected(learner: Learner, model: str = MODEL) -> int | None:
    return learner.expect(KEY, model, UNBOUNDED)


def aged(completions: list[int]) -> list[tuple[int, float]]:
    """Each length with what it weighs by the halvings since."""
    last = len(completions) // HALVING
    return [(length, 0.5 ** (last - at // HALVING)) for at, length in enumerate(completions)]


def quantile(completions: list[int], one_in: float = ONE_IN) -> int:
    """The least length that at most one in so many lies above, each as aged."""
    weighed = aged(completions)
    above, room = 0.0, math.fsum(weight for _, weight in weighed) / one_in
    for length, weight in sorted(weighed, reverse=True):
        above += weight
        if above > room:
            return length
    return 0


def mean(completions: list[int]) -> float:
    weighed = aged(completions)
    tokens = math.fsum(length * weight for length, weight in weighed)
    return tokens / math.fsum(weight for _, weight in weighed)


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
    assert expected(taught([300] + [0] * COLD)) == 15


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
def test_what_is_expected_is_the_greater_of_quantile_and_mean_of_what_is_remembered(
    lengths: Callable[[random.Random], int], seed: int, count: int
) -> None:
    rng = random.Random(seed)
    completions = [lengths(rng) for _ in range(count)]
    learned = expected(taught(completions))
    assert learned is not None
    rounding = 1e-3  # where exactly one in four lies above, it may fall on either side
    low, high = quantile(completions, ONE_IN - rounding), quantile(completions, ONE_IN + rounding)
    average = mean(completions)
    assert max(low, average) <= learned <= max(high * 1.05, average * 1.05 + 1)


@given(
    short=st.integers(0, 4_000),
    times=st.integers(2, 1_000),
    one_in=st.integers(2, 200),
    count=st.integers(COLD, 4 * HALVING),
    at=st.integers(0, 200),
)
def test_of_two_sorts_of_lengths_never_less_than_their_mean_is_expected(
    short: int, times: int, one_in: int, count: int, at: int
) -> None:
    completions = [short * times + 1 if (number + at) % one_in == 0 else short for number in range(count)]
    assert (expected(taught(completions)) or 0) >= mean(completions) - 1e-6


def test_what_is_reserved_for_short_completions_covers_the_few_long_ones() -> None:
    completions = [50, 50, 50, 50, 2_000] * 40
    assert quantile(completions) == 50
    assert 440 <= (expected(taught(completions)) or 0) <= 440 * 1.05


@pytest.mark.parametrize("before", [COLD, *range(HALVING, 6 * HALVING, 19), 6 * HALVING - 1])
def test_longer_completions_are_followed_within_99(before: int) -> None:
    learner = taught([100] * before)
    assert (expected(learner) or 0) <= 105
    assert (expected(taught([3_000] * 99, learner)) or 0) >= 3_000


@pytest.mark.parametrize("before", [COLD, *range(HALVING, 6 * HALVING, 19), 6 * HALVING - 1])
def test_shorter_completions_are_followed_by_half_within_400_and_nearly_within_700(before: int) -> None:
    learner = taught([3_000] * before)
    assert (expected(learner) or 0) >= 3_000
    assert (expected(taught([100] * 400, learner)) or 0) <= 1_550
    assert (expected(taught([100] * 300, learner)) or 0) <= 390
    assert (expected(taught([100] * 3_000, learner)) or 0) <= 105


@pytest.mark.parametrize("before", [COLD, 150, HALVING, 5 * HALVING, 5 * HALVING + 150])
def test_a_few_long_completions_among_the_short_raise_what_is_expected(before: int) -> None:
    learner = taught([100] * before)
    for _ in range(10):
        few = expected(taught([100] * 9, learner)) or 0
        assert (expected(taught([20_000], learner)) or 0) > few + 20


@pytest.mark.parametrize(("longest", "long", "learned"), [(5, 5, 10), (6, 4, 15), (10, 10, 15), (11, 9, 15)])
def test_of_four_completions_one_may_take_more_than_is_expected(
    longest: int, long: int, learned: int
) -> None:
    completions = [15] * longest + [10] * long + [0] * (20 - longest - long)
    assert expected(taught(completions)) == expected(taught(reversed(completions))) == learned


@pytest.mark.parametrize("lengths", ["uniform", "rarely long", "with a long tail"])
def test_however_long_it_runs_the_same_is_expected(lengths: str) -> None:
    rng = random.Random(7)
    completions = [LENGTHS[lengths](rng) for _ in range(HALVING)]
    learner = taught(completions * 20)
    settled = expected(learner)
    taught(itertools.chain.from_iterable(itertools.repeat(completions, 1_500)), learner)
    assert expected(learner) == settled
    due = max(quantile(completions), mean(completions))
    assert due <= (settled or 0) <= due * 1.05 + 1


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
