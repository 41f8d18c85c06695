"""Drift: what is said of an estimate, and when nothing is."""

import pytest

from service.domain.drift import drift
from service.domain.exchange import Exchange
from service.domain.stream import EventStream
from service.domain.usage import OUTCOMES, Estimate, Usage


def exchange(*, estimate: Estimate | None, usage: Usage | None, outcome: str = "complete") -> Exchange:
    made = Exchange("POST", "/v1/chat/completions", b"", [])
    made.estimate, made.usage, made.outcome = estimate, usage, outcome
    return made


def used(prompt: int = 100, completion: int = 100, source: str = "provider") -> Usage:
    return Usage(prompt, completion, source)


def test_the_error_is_the_share_of_what_was_used_that_the_estimate_lacked() -> None:
    short = exchange(estimate=Estimate(prompt=90, completion=1000), usage=used())
    assert dict(drift(short)) == {"prompt": 0.1, "completion": -9.0}


def test_an_exact_estimate_has_no_error() -> None:
    exact = exchange(estimate=Estimate(prompt=100, completion=100), usage=used())
    assert dict(drift(exact)) == {"prompt": 0.0, "completion": 0.0}


@pytest.mark.parametrize(("learned", "error"), [(50, 0.5), (0, 1.0), (None, -9.0)])
def test_a_completion_is_compared_with_what_experience_expected_where_there_is_any(
    learned: int | None, error: float
) -> None:
    one = exchange(estimate=Estimate(100, 1000, learned), usage=used())
    assert dict(drift(one)) == {"prompt": 0.0, "completion": error}


def test_a_part_of_which_nothing_was_used_says_nothing() -> None:
    estimate = Estimate(100, 100)
    assert dict(drift(exchange(estimate=estimate, usage=used(completion=0)))) == {"prompt": 0.0}
    assert dict(drift(exchange(estimate=estimate, usage=used(prompt=0)))) == {"completion": 0.0}


@pytest.mark.parametrize("source", ["local", "reservation", "none"])
def test_only_the_provider_knows_what_was_used(source: str) -> None:
    assert not dict(drift(exchange(estimate=Estimate(90, 90), usage=used(source=source))))


@pytest.mark.parametrize("outcome", OUTCOMES[1:])
def test_an_exchange_that_did_not_come_to_its_end_says_nothing(outcome: str) -> None:
    cut = exchange(estimate=Estimate(90, 90), usage=used(), outcome=outcome)
    assert not dict(drift(cut))


def test_what_was_not_estimated_or_not_reckoned_says_nothing() -> None:
    assert not dict(drift(exchange(estimate=None, usage=used())))
    assert not dict(drift(exchange(estimate=Estimate(90, 90), usage=None)))


def streamed(events: bytes) -> Exchange:
    stream = EventStream(hide_usage=False)
    stream.feed(events)
    stream.finish()
    one = exchange(estimate=Estimate(90, 90), usage=stream.usage)
    one.stream = stream
    return one


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":100}}\n\n'


def test_a_stream_that_ended_is_an_exchange_like_others() -> None:
    assert dict(drift(streamed(USAGE + b"data: [DONE]\n\n"))) == {"prompt": 0.1, "completion": 0.1}


def test_a_stream_that_failed_on_the_way_says_nothing_though_it_told_its_usage_so_far() -> None:
    assert not dict(drift(streamed(USAGE + b'data: {"error":{"message":"Overloaded."}}\n\n')))
