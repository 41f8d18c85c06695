"""Errors: what Weir says when it answers itself."""

import json

import pytest

from service.domain.errors import (
    Forbidden,
    Gone,
    InvalidRequest,
    LimiterUnavailable,
    NotFound,
    RateLimited,
    Rejection,
    TooLarge,
    Unauthenticated,
    UnsupportedMedia,
    UpstreamFailed,
    UpstreamTimeout,
    envelope,
)

KINDS = [
    (Rejection, 500, "server_error", None),
    (InvalidRequest, 400, "invalid_request_error", None),
    (Unauthenticated, 401, "invalid_request_error", "invalid_api_key"),
    (Forbidden, 403, "permission_error", None),
    (NotFound, 404, "invalid_request_error", None),
    (Gone, 410, "invalid_request_error", None),
    (TooLarge, 413, "invalid_request_error", None),
    (UnsupportedMedia, 415, "invalid_request_error", None),
    (RateLimited, 429, "tokens", "rate_limit_exceeded"),
    (UpstreamFailed, 502, "server_error", None),
    (LimiterUnavailable, 503, "server_error", "rate_limiter_unavailable"),
    (UpstreamTimeout, 504, "server_error", "timeout"),
]


@pytest.mark.parametrize(("kind", "status", "type_", "code"), KINDS, ids=lambda value: str(value))
def test_each_kind_has_its_status_its_type_and_its_code(
    kind: type[Rejection], status: int, type_: str, code: str | None
) -> None:
    rejection = kind("No.")
    assert rejection.status == status
    error = {"message": "No.", "type": type_, "param": None, "code": code}
    assert json.loads(rejection.body()) == {"error": error}
    assert rejection.headers == []
    assert str(rejection) == "No."


def test_one_rejection_may_say_more_than_its_kind() -> None:
    fields = [(b"retry-after", b"1")]
    rejection = RateLimited(
        "No.", param="n", code="insufficient_quota", type="insufficient_quota", status=417, headers=fields
    )
    error = {"message": "No.", "type": "insufficient_quota", "param": "n", "code": "insufficient_quota"}
    assert json.loads(rejection.body()) == {"error": error}
    assert rejection.status == 417
    assert rejection.headers == fields
    assert rejection.headers is not fields
    assert RateLimited("No.").code == "rate_limit_exceeded"


def test_the_envelope_is_compact_and_in_the_words_of_its_language() -> None:
    said = envelope('"Übergröße" 🌊', type="t")
    assert said == ('{"error":{"message":"\\"Übergröße\\" 🌊","type":"t","param":null,"code":null}}'.encode())
