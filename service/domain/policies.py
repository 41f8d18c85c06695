"""Policies: as the definition writes them, and the policy each becomes."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, field_validator
from pydantic_core import PydanticKnownError
from pydantic_core.core_schema import ValidationInfo

from service.domain.account import Algorithm
from service.domain.calendar import DAY, Calendar, Unit, check_start
from service.domain.condition import ConditionOptions
from service.domain.globs import Pattern
from service.domain.marks import near
from service.domain.measures import Percent, kebab
from service.domain.policy import EXACT, MILLIONTHS, MOST, MOST_COST, Count, OnLedgerFailure, Policy, Reserve
from service.domain.subject import Dimension
from service.domain.weights import Weights

LONGEST = 3_650  # days; a window beyond ten years is a mistake
HEAVIEST = 10**6  # what one token costs at most

_LENGTHS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY}
# Which counts an option makes sense with, where not with all.
_COUNTS = {
    "window": tuple(count for count in Count if count is not Count.CONCURRENT),
    "algorithm": tuple(count for count in Count if count is not Count.CONCURRENT),
    "weights": (Count.COST,),
    "count_cached": (Count.TOTAL, Count.PROMPT),
    "reserve": (Count.TOTAL, Count.COMPLETION, Count.COST),
}
_NEEDED = {"window": _COUNTS["window"], "weights": _COUNTS["weights"]}


def _window(value: object) -> int | Unit:
    if isinstance(value, str) and value in list(Unit):
        return Unit(value)
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", value) if isinstance(value, str) else None
    length = int(match[1]) * _LENGTHS[match[2]] if match else 0
    if not 0 < length <= LONGEST * DAY:
        raise ValueError(
            f"expected a window such as 30s, 1m, 24h or 30d, up to {LONGEST}d, or {_one_of(Unit)}"
        )
    return length


def _timezone(value: str) -> str:
    known = available_timezones()
    if value not in known:
        raise ValueError(f'expected a timezone such as Europe/Berlin, not "{value}"{near(value, known)}')
    return value


def _decimal(value: object, least: Decimal, most: int) -> Decimal:
    """A number as it was written, not as the computer halves and halves it."""
    number = Decimal(str(value)) if type(value) in (int, float) else Decimal(-1)
    if not least <= number <= most or number % Decimal("0.000001"):
        raise ValueError(f"expected a number from {least:f} to {most} of at most 6 decimal places")
    return number


def _weight(value: object) -> int:
    return int(_decimal(value, Decimal(0), HEAVIEST) * MILLIONTHS)


# `30s`, `1m`, `24h`, `30d` as milliseconds, more than 0; or a unit of the calendar.
Window = Annotated[int | Unit, PlainValidator(_window)]
# A decimal of at most six places, as whole millionths.
Weight = Annotated[int, PlainValidator(_weight)]


class WeightOptions(BaseModel):
    """What the kinds of tokens of some models cost, as the definition writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Weight
    completion: Weight
    cached: Weight | None = None
    reasoning: Weight | None = None
    audio: Weight | None = None


class PolicyOptions(BaseModel):
    """One policy, as the definition writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    # A member is checked against those before it, so the order matters.
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    per: tuple[Dimension, ...]
    when: ConditionOptions | None = None
    count: Count = Count.TOTAL
    limit: int | Decimal
    window: Window | None = Field(default=None, validate_default=True)
    timezone: Annotated[str, AfterValidator(_timezone)] | None = None
    starts: str | None = None
    algorithm: Literal["leaky-bucket", "sliding-window", "fixed-window"] | None = None
    burst: Percent = 0
    enforce: bool = True
    reserve: Reserve = Reserve.LEARNED
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REFUSE
    weights: dict[Pattern, WeightOptions] | None = Field(default=None, validate_default=True)
    count_cached: bool = True

    @field_validator(*_COUNTS)
    @classmethod
    def _suits_the_count(cls, value: object, info: ValidationInfo) -> object:
        name, count = str(info.field_name), info.data.get("count")
        if value is None and count in _NEEDED.get(name, ()):
            raise PydanticKnownError("missing")
        if value is not None and count and count not in _COUNTS[name]:
            raise ValueError(f"expected only beside count: {_one_of(_COUNTS[name])}, not {count}")
        return value

    @field_validator("limit", mode="plain")
    @classmethod
    def _read_limit(cls, value: object, info: ValidationInfo) -> int | Decimal:
        if info.data.get("count", Count.COST) is Count.COST:
            return _decimal(value, Decimal("0.000001"), MOST_COST)
        if type(value) is not int or not 1 <= value <= MOST:
            raise ValueError(f"expected a whole number from 1 to {MOST}")
        return value

    @field_validator("starts", mode="plain")
    @classmethod
    def _read_starts(cls, value: object, info: ValidationInfo) -> str | None:
        unit = info.data.get("window")
        if value is not None and isinstance(unit, Unit):
            check_start(unit, str(value))
        return None if value is None else str(value)

    @field_validator("timezone", "starts")
    @classmethod
    def _suits_the_window(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not isinstance(info.data.get("window", Unit.DAY), Unit):
            raise ValueError(f"expected only beside window: {_one_of(Unit)}, not a length such as 1m")
        return value

    @field_validator("algorithm")
    @classmethod
    def _follows_the_calendar(cls, value: str | None, info: ValidationInfo) -> str | None:
        window = info.data.get("window")
        if isinstance(window, Unit) and value not in (None, "fixed-window"):
            raise ValueError(f"expected fixed-window beside window: {window}, not {value}")
        return value

    @field_validator("burst")
    @classmethod
    def _stays_exact(cls, value: int, info: ValidationInfo) -> int:
        limit, count = info.data.get("limit", 0), info.data.get("count", Count.TOTAL)
        if int(limit * count.unit) * (100 + value) // 100 >= EXACT:
            raise ValueError(f"expected a burst that keeps the capacity below {EXACT // count.unit}")
        return value

    @field_validator("weights")
    @classmethod
    def _weigh_every_model(
        cls, value: dict[str, WeightOptions] | None, info: ValidationInfo
    ) -> dict[str, WeightOptions] | None:
        if value is not None and "*" not in value:
            raise ValueError('expected the pattern "*" too, so that no model is free')
        if value and list(value)[-1] != "*":
            raise ValueError('expected the pattern "*" last, as those behind it never count')
        return value

    def policy(self) -> Policy:
        """The policy it describes."""
        return Policy(
            name=self.name,
            per=tuple(sorted(set(self.per))),
            limit=self.limit,
            window=self.window if isinstance(self.window, int) else 0,
            count=self.count,
            algorithm=self._algorithm(),
            burst=self.burst,
            enforce=self.enforce,
            reserve=self.reserve,
            on_ledger_failure=self.on_ledger_failure,
            calendar=self._calendar(),
            weights=tuple((glob, Weights(**one.model_dump())) for glob, one in (self.weights or {}).items()),
            count_cached=self.count_cached,
            when=self.when.condition() if self.when else None,
        )

    def _calendar(self) -> Calendar | None:
        if not isinstance(self.window, Unit):
            return None
        return Calendar(self.window, self.timezone or "UTC", self.starts or "")

    def _algorithm(self) -> Algorithm:
        if self.count is Count.CONCURRENT:
            return Algorithm.CONCURRENCY
        usual = Algorithm.FIXED_WINDOW if isinstance(self.window, Unit) else Algorithm.LEAKY_BUCKET
        return Algorithm(self.algorithm or usual)


def _one_of(words: Iterable[str]) -> str:
    *others, last = map(str, words)
    return f"{', '.join(others)} or {last}" if others else last
