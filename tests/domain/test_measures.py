"""Measures: a number and its unit, and nothing else."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.domain.measures import Duration, Percent, Size, kebab


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "500ms", 0.5),
        (Duration, "60s", 60.0),
        (Duration, "2m", 120.0),
        (Duration, "1h", 3600.0),
        (Size, "100B", 100),
        (Size, "512KB", 524_288),
        (Size, "32MB", 33_554_432),
        (Size, "1GB", 1_073_741_824),
        (Percent, "0%", 0),
        (Percent, "10%", 10),
        (Percent, "1000%", 1000),
    ],
)
def test_a_measure_is_a_number_and_its_unit(kind: Any, text: str, value: float) -> None:
    assert TypeAdapter(kind).validate_python(text) == value


@pytest.mark.parametrize("kind", [Duration, Size, Percent])
@pytest.mark.parametrize(
    "text", ["", "1", 1, None, "s", "-1s", "1.5s", "1 s", "1S", "1w", "1mb", "٣s", "1s\n"]
)
def test_nothing_else_is_a_measure(kind: Any, text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


def test_members_are_written_with_hyphens() -> None:
    assert kebab("on_ledger_failure") == "on-ledger-failure"
