"""Usage: which numbers of an upstream are believed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.usage import MOST_TOKENS, NOTHING, Estimate, Usage, provided


def test_usage_is_read_with_its_details() -> None:
    usage = {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 3},
    }
    read = provided({"usage": usage})
    assert read == Usage(
        prompt=19,
        completion=10,
        source="provider",
        cached=8,
        reasoning=4,
        prompt_audio=5,
        completion_audio=3,
    )
    assert read is not None
    assert read.total == 29


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, MOST_TOKENS + 1, float("nan"), [1]])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_what_is_not_a_sane_count_is_not_believed(name: str, value: object) -> None:
    assert provided({"usage": {"prompt_tokens": 1, "completion_tokens": 1, name: value}}) is None


@pytest.mark.parametrize("count", [0, MOST_TOKENS])
def test_the_bounds_are_believed(count: int) -> None:
    assert provided({"usage": {"prompt_tokens": count, "completion_tokens": count}}) is not None


@pytest.mark.parametrize(
    "details", [None, 1, [], {"cached_tokens": True}, {"cached_tokens": -1}, {"audio_tokens": 1.5}, {}]
)
def test_odd_details_do_not_make_the_counts_doubtful(details: object) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": details}
    assert provided({"usage": usage}) == Usage(prompt=1, completion=2, source="provider")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "prompt_tokens", "completion_tokens", "prompt_tokens_details"]), inner
        )
    ),
)


@given(json_values)
def test_any_document_gives_a_sane_usage_or_none(document: Any) -> None:
    usage = provided(document)
    assert usage is None or 0 <= usage.total <= 2 * MOST_TOKENS


def test_totals_are_prompt_and_completion() -> None:
    assert Estimate(prompt=3, completion=4).total == 7
    assert NOTHING.total == 0
