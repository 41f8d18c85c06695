"""Calendar: windows of a day, week, month or year as people at some place live them."""

import calendar
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY = 86_400_000  # ms; a common one

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_STEPS = range(-2, 6)  # windows before and after a day, so that those around each of its moments are there


class Unit(StrEnum):
    """How long a window is, by the calendar."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


_DAYS = {Unit.DAY: 1, Unit.WEEK: 7, Unit.MONTH: 30, Unit.YEAR: 365}
_FIRST = {Unit.DAY: "00:00", Unit.WEEK: "monday", Unit.MONTH: "1", Unit.YEAR: "01-01"}
_FORMS = {
    Unit.DAY: (r"([01]\d|2[0-3]):([0-5]\d)", 'a time of day such as "06:30", in quotes'),
    Unit.WEEK: (f"(?:{'|'.join(_WEEKDAYS)})", "a weekday such as monday"),
    Unit.MONTH: (r"([1-9]|[12]\d|3[01])", "a day of the month from 1 to 31"),
    Unit.YEAR: (
        r"(0[1-9]|1[0-2])-(0[1-9]|1\d|2\d)|(0[13-9]|1[0-2])-30|(0[13578]|1[02])-31",
        "a month and a day such as 04-01",
    ),
}


def check_start(unit: Unit, starts: str) -> None:
    """Raises ValueError where it is not how a window of that unit can begin."""
    form, expected = _FORMS[unit]
    if not re.fullmatch(form, starts, re.ASCII):
        raise ValueError(f"expected {expected}")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Windows of one `unit` after the other, each beginning where `starts` says, by the clocks of `timezone`.

    `starts` is `HH:MM` for days, a weekday for weeks, a day from 1 to 31 for months, `MM-DD` for years; a
    day that a month does not have is its last. Left out: midnight, Monday, the first, New Year's Day.
    Raises ValueError where it is something else.
    """

    unit: Unit
    timezone: str = "UTC"
    starts: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", self.starts or _FIRST[self.unit])
        check_start(self.unit, self.starts)

    @property
    def length(self) -> int:
        """How long a window is by its name, in ms: of a day, or 7, 30 or 365 of them."""
        return _DAYS[self.unit] * DAY

    def boundaries(self, now: int) -> tuple[int, int, int]:
        """When the window that `now` lies in began, when it ends, when the next does; ms since 1970."""
        around = _around(self, now // DAY)
        end = bisect_right(around, now)
        return around[end - 1], around[end], around[end + 1]

    def beginnings(self, day: date) -> Iterator[datetime]:
        """The local times at which the windows around a day begin."""
        for step in _STEPS:
            match self.unit:
                case Unit.DAY:
                    yield _at(day + timedelta(days=step), time.fromisoformat(self.starts))
                case Unit.WEEK:
                    days = _WEEKDAYS.index(self.starts) - day.weekday() + 7 * step
                    yield _at(day + timedelta(days=days))
                case Unit.MONTH:
                    year, month = divmod(day.year * 12 + day.month - 1 + step, 12)
                    yield _at(_day_of(year, month + 1, int(self.starts)))
                case _:
                    month, number = map(int, self.starts.split("-"))
                    yield _at(_day_of(day.year + step, month, number))


@lru_cache(maxsize=1024)
def _around(windows: Calendar, day: int) -> tuple[int, ...]:
    """When the windows around a day (of UTC, counted from 1970) begin; ms since 1970, rising."""
    zone = ZoneInfo(windows.timezone)
    here = (_EPOCH + timedelta(days=day)).astimezone(zone).date()
    return tuple(sorted({_first(wall, zone) for wall in windows.beginnings(here)}))


def _first(wall: datetime, zone: ZoneInfo) -> int:
    """The first moment at which the clocks of a place show this time or, where they skip it, a later one."""
    once, again = (_moment(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if once <= again:
        return once
    skipped = range(again, once)  # the clocks leap somewhere within
    return again + bisect_left(skipped, True, key=lambda moment: _shown(moment, zone) >= wall)


def _moment(aware: datetime) -> int:
    return (aware - _EPOCH) // _MILLISECOND


def _shown(moment: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + moment * _MILLISECOND).astimezone(zone).replace(tzinfo=None)


def _at(day: date, hour: time = time.min) -> datetime:
    return datetime.combine(day, hour)


def _day_of(year: int, month: int, day: int) -> date:
    """A day of a month, or its last where it has not so many."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))
