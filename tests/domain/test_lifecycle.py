"""Lifecycle: what an API's state of publication means for a request."""

import pytest

from service.domain.errors import Gone, NotFound
from service.domain.lifecycle import lifecycle_fields, refuse_unpublished
from tests.world import decoded


@pytest.mark.parametrize(("state", "refusal"), [("DRAFT", NotFound), ("RETIRED", Gone)])
def test_what_is_not_published_is_refused(state: str, refusal: type[NotFound]) -> None:
    api = decoded([], [], lifecycle=state)
    with pytest.raises(refusal) as refused:
        refuse_unpublished(api)
    assert type(refused.value) is refusal
    assert lifecycle_fields(api) == []


@pytest.mark.parametrize("state", ["AVAILABLE", "DEPRECATED"])
def test_what_is_published_passes(state: str) -> None:
    refuse_unpublished(decoded([], [], lifecycle=state))


def test_nothing_is_said_of_an_api_that_stays() -> None:
    assert lifecycle_fields(decoded([], [])) == []


@pytest.mark.parametrize(
    ("dates", "fields"),
    [
        ({}, [(b"deprecation", b"true")]),
        ({"deprecated": "2026-01-01"}, [(b"deprecation", b"@1767225600")]),
        (
            {"deprecated": "2026-01-01", "sunset": "2026-10-01"},
            [(b"deprecation", b"@1767225600"), (b"sunset", b"Thu, 01 Oct 2026 00:00:00 GMT")],
        ),
        (
            {"sunset": "2026-10-01"},
            [(b"deprecation", b"true"), (b"sunset", b"Thu, 01 Oct 2026 00:00:00 GMT")],
        ),
    ],
    ids=["no date", "since", "since and until", "until"],
)
def test_an_api_on_its_way_out_says_since_when_and_until_when(
    dates: dict[str, str], fields: list[tuple[bytes, bytes]]
) -> None:
    assert lifecycle_fields(decoded([], [], lifecycle="DEPRECATED", **dates)) == fields
