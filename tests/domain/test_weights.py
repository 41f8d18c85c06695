"""Weights: what tokens of several kinds cost, to the millionth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.usage import MOST_TOKENS, Estimate, Usage
from service.domain.weights import Weights

ALL = Weights(
    prompt=2_500_000, completion=10_000_000, cached=1_250_000, reasoning=12_000_000, audio=40_000_000
)
TWO = Weights(prompt=3, completion=7)


def used(prompt: int, completion: int, **details: int) -> Usage:
    return Usage(prompt, completion, "provider", **details)


@pytest.mark.parametrize(
    ("weights", "usage", "cost"),
    [
        (ALL, used(10, 0), 25_000_000),
        (ALL, used(10, 0, cached=4), 6 * 2_500_000 + 4 * 1_250_000),
        (ALL, used(10, 0, cached=4, prompt_audio=5), 2_500_000 + 4 * 1_250_000 + 5 * 40_000_000),
        (ALL, used(0, 10), 100_000_000),
        (ALL, used(0, 10, reasoning=8), 2 * 10_000_000 + 8 * 12_000_000),
        (ALL, used(0, 10, reasoning=3, completion_audio=6), 10_000_000 + 3 * 12_000_000 + 6 * 40_000_000),
        (TWO, used(10, 10, cached=4, prompt_audio=5, reasoning=3, completion_audio=6), 30 + 70),
        # More of a kind than there are tokens: no token counts twice.
        (ALL, used(10, 0, cached=11), 10 * 1_250_000),
        (ALL, used(10, 0, cached=8, prompt_audio=8), 8 * 1_250_000 + 2 * 40_000_000),
        (ALL, used(0, 10, reasoning=10, completion_audio=10), 120_000_000),
    ],
)
def test_each_token_costs_what_its_kind_does(weights: Weights, usage: Usage, cost: int) -> None:
    assert weights.cost(usage) == cost


@pytest.mark.parametrize(
    ("weights", "cost"),
    [
        (TWO, 10 * 3 + 5 * 7),
        (ALL, 10 * 40_000_000 + 5 * 40_000_000),
        (Weights(prompt=3, completion=7, cached=9, reasoning=8), 10 * 9 + 5 * 8),
        (Weights(prompt=3, completion=7, cached=1, reasoning=1, audio=1), 10 * 3 + 5 * 7),
    ],
)
def test_an_estimate_costs_what_the_dearest_kinds_would(weights: Weights, cost: int) -> None:
    assert weights.cost(Estimate(prompt=10, completion=5)) == cost


counts = st.integers(0, MOST_TOKENS)
weight = st.integers(0, 10**12)
some = st.none() | weight


@given(
    st.builds(Weights, weight, weight, some, some, some),
    st.builds(Usage, *[counts] * 2, st.just("provider"), *[counts] * 4),
)
def test_what_is_used_never_costs_more_than_what_was_estimated(weights: Weights, usage: Usage) -> None:
    assert 0 <= weights.cost(usage) <= weights.cost(Estimate(usage.prompt, usage.completion))
