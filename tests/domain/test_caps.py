"""Caps: what is reckoned with where no cap is declared, and how it is put upstream."""

import json

from service.domain.caps import caps, declare
from service.domain.chat import parse
from service.domain.exchange import Exchange


def test_the_first_glob_that_matches_a_model_counts() -> None:
    made = caps({"o3-mini": 5, "o3*": 8192, "*": 1024})
    assert [made.of(model) for model in ("o3-mini", "o3-pro", "gpt-4o")] == [5, 8192, 1024]


def declared(**members: object) -> bytes:
    body = json.dumps({"model": "gpt-4o", **members}).encode()
    exchange = Exchange("POST", "/", b"", [], body=body, chat=parse(body))
    assert exchange.chat is not None
    before = exchange.chat
    declare(exchange, before, 50)
    assert exchange.chat.cap == (before.cap or 50)
    assert parse(exchange.body).cap == (before.cap or 50)
    return exchange.body


def test_a_cap_is_declared_where_there_is_none() -> None:
    assert declared() == b'{"max_completion_tokens":50,"model": "gpt-4o"}'
    assert declared(max_tokens=None) == b'{"max_completion_tokens":50,"model": "gpt-4o", "max_tokens": null}'
    assert declared(max_completion_tokens=None) == b'{"model": "gpt-4o", "max_completion_tokens": 50}'


def test_a_cap_that_was_declared_stands() -> None:
    for members in (
        {"max_tokens": 5},
        {"max_completion_tokens": 99},
        {"max_tokens": 5, "max_completion_tokens": 9},
    ):
        assert declared(**members) == json.dumps({"model": "gpt-4o", **members}).encode()


def test_what_was_declared_once_is_not_declared_again() -> None:
    """Two steps that both cap had written the member twice."""
    exchange = Exchange("POST", "/", b"", [], body=b'{"model":"m"}', chat=parse(b'{"model":"m"}'))
    for cap in (50, 60):
        assert exchange.chat is not None
        declare(exchange, exchange.chat, cap)
    assert exchange.body == b'{"max_completion_tokens":50,"model":"m"}'
