"""Calendar: a window begins and ends when people at the place say so."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.calendar import DAY, Calendar, Unit, check_start

HOUR = 3_600_000
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Asia/Beirut"),
    *("Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "America/St_Johns", "Pacific/Kiritimati"),
]


def ms(text: str) -> int:
    """Of a time with its offset."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def moments(windows: Calendar, now: str) -> list[str]:
    """The three boundaries, as the clocks at the place show them."""
    zone = ZoneInfo(windows.timezone)
    return [
        datetime.fromtimestamp(moment / 1000, zone).isoformat(timespec="minutes")
        for moment in windows.boundaries(ms(now))
    ]


@pytest.mark.parametrize(
    ("windows", "now", "start", "end", "next_end"),
    [
        (Calendar(Unit.DAY), "2026-03-10T12:00Z", "2026-03-10T00:00", "2026-03-11T00:00", "2026-03-12T00:00"),
        (
            Calendar(Unit.DAY, starts="06:30"),
            "2026-03-10T06:29:59.999Z",
            *("2026-03-09T06:30", "2026-03-10T06:30", "2026-03-11T06:30"),
        ),
        (
            Calendar(Unit.WEEK),
            "2026-03-08T23:59:59.999Z",  # a Sunday
            *("2026-03-02T00:00", "2026-03-09T00:00", "2026-03-16T00:00"),
        ),
        (
            Calendar(Unit.WEEK, starts="sunday"),
            "2026-03-08T00:00Z",
            *("2026-03-08T00:00", "2026-03-15T00:00", "2026-03-22T00:00"),
        ),
        (
            Calendar(Unit.MONTH),
            "2026-12-31T23:59Z",
            *("2026-12-01T00:00", "2027-01-01T00:00", "2027-02-01T00:00"),
        ),
        (
            Calendar(Unit.MONTH, starts="5"),
            "2026-03-04T00:00Z",
            *("2026-02-05T00:00", "2026-03-05T00:00", "2026-04-05T00:00"),
        ),
        (
            Calendar(Unit.MONTH, starts="31"),
            "2026-02-27T00:00Z",
            *("2026-01-31T00:00", "2026-02-28T00:00", "2026-03-31T00:00"),
        ),
        (
            Calendar(Unit.MONTH, starts="31"),
            "2028-02-29T00:00Z",
            *("2028-02-29T00:00", "2028-03-31T00:00", "2028-04-30T00:00"),
        ),
        (
            Calendar(Unit.YEAR),
            "2026-03-10T00:00Z",
            *("2026-01-01T00:00", "2027-01-01T00:00", "2028-01-01T00:00"),
        ),
        (
            Calendar(Unit.YEAR, starts="04-01"),
            "2026-03-31T23:59Z",
            *("2025-04-01T00:00", "2026-04-01T00:00", "2027-04-01T00:00"),
        ),
        (
            Calendar(Unit.YEAR, starts="02-29"),
            "2027-03-01T00:00Z",
            *("2027-02-28T00:00", "2028-02-29T00:00", "2029-02-28T00:00"),
        ),
    ],
)
def test_each_unit_begins_where_it_is_told_to(
    windows: Calendar, now: str, start: str, end: str, next_end: str
) -> None:
    assert moments(windows, now) == [f"{text}+00:00" for text in (start, end, next_end)]


@pytest.mark.parametrize(
    ("windows", "now", "hours"),
    [
        (Calendar(Unit.DAY, "Europe/Berlin"), "2026-03-29T12:00Z", 23),
        (Calendar(Unit.DAY, "Europe/Berlin"), "2026-10-25T12:00Z", 25),
        (Calendar(Unit.DAY, "Australia/Lord_Howe"), "2026-10-04T00:00Z", 23.5),
        (Calendar(Unit.WEEK, "Europe/Berlin"), "2026-03-29T12:00Z", 7 * 24 - 1),
        (Calendar(Unit.MONTH, "America/New_York"), "2026-11-10T12:00Z", 30 * 24 + 1),
        (Calendar(Unit.YEAR, "Europe/Berlin"), "2026-06-01T12:00Z", 365 * 24),
    ],
)
def test_a_day_on_which_the_clocks_change_is_as_long_as_it_is(
    windows: Calendar, now: str, hours: float
) -> None:
    start, end, _ = windows.boundaries(ms(now))
    assert (end - start) / HOUR == hours


@pytest.mark.parametrize(
    ("windows", "now", "expected"),
    [
        # The clocks leap from 00:00 to 01:00: the day begins at one.
        (
            Calendar(Unit.DAY, "Asia/Beirut"),
            "2026-03-29T12:00Z",
            ["2026-03-29T01:00+03:00", "2026-03-30T00:00+03:00", "2026-03-31T00:00+03:00"],
        ),
        # From 02:00 to 03:00: what should begin at 02:30 begins with the first minute after.
        (
            Calendar(Unit.DAY, "Europe/Berlin", "02:30"),
            "2026-03-29T12:00Z",
            ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00", "2026-03-31T02:30+02:00"],
        ),
        # 02:30 comes twice: the first counts.
        (
            Calendar(Unit.DAY, "Europe/Berlin", "02:30"),
            "2026-10-25T12:00Z",
            ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"],
        ),
        # Samoa had no 30th of December in 2011: no window is of no time.
        (
            Calendar(Unit.DAY, "Pacific/Apia"),
            "2011-12-29T12:00-10:00",
            ["2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"],
        ),
    ],
)
def test_a_beginning_that_the_clocks_skip_or_repeat_is_the_first_moment_after(
    windows: Calendar, now: str, expected: list[str]
) -> None:
    assert moments(windows, now) == expected


STARTS = {
    Unit.DAY: st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    Unit.WEEK: st.sampled_from(["monday", "wednesday", "sunday"]),
    Unit.MONTH: st.integers(1, 31).map(str),
    Unit.YEAR: st.sampled_from(["01-01", "02-29", "03-31", "12-31"]),
}
calendars = st.sampled_from(Unit).flatmap(
    lambda unit: st.builds(Calendar, st.just(unit), st.sampled_from(ZONES), STARTS[unit])
)
times = st.integers(ms("1990-01-01T00:00Z"), ms("2060-01-01T00:00Z"))


@given(calendars, times)
def test_every_moment_lies_in_one_window_and_the_next_follows_it(windows: Calendar, now: int) -> None:
    start, end, next_end = windows.boundaries(now)
    assert start <= now < end < next_end
    assert windows.boundaries(start) == (start, end, next_end)
    assert windows.boundaries(end - 1) == (start, end, next_end)
    assert windows.boundaries(end)[:2] == (end, next_end)


@given(calendars, times)
def test_a_window_is_about_as_long_as_its_name_says(windows: Calendar, now: int) -> None:
    start, end, _ = windows.boundaries(now)
    slack = 2 * DAY if windows.unit in (Unit.MONTH, Unit.YEAR) else 0
    # Somewhere the clocks are changed by as much as a day, when a country moves over the date line.
    assert windows.length - slack - 2 * HOUR <= end - start <= windows.length + slack + 25 * HOUR


@given(times)
def test_days_of_utc_are_the_days_of_the_clock(now: int) -> None:
    assert Calendar(Unit.DAY).boundaries(now)[0] == now - now % DAY


@given(st.sampled_from(ZONES), times)
def test_a_day_begins_with_the_first_moment_of_its_date(timezone: str, now: int) -> None:
    start, *_ = Calendar(Unit.DAY, timezone).boundaries(now)
    moment = datetime.fromtimestamp(start / 1000, UTC).astimezone(ZoneInfo(timezone))
    just_before = (moment.astimezone(UTC) - timedelta(milliseconds=1)).astimezone(ZoneInfo(timezone))
    assert just_before.date() < moment.date()


@pytest.mark.parametrize(
    ("unit", "starts"), [(Unit.DAY, "00:00"), (Unit.WEEK, "monday"), (Unit.MONTH, "1"), (Unit.YEAR, "01-01")]
)
def test_what_is_not_said_is_the_usual_beginning(unit: Unit, starts: str) -> None:
    assert Calendar(unit) == Calendar(unit, "UTC", starts)


@pytest.mark.parametrize(
    ("unit", "starts", "expected"),
    [
        (Unit.DAY, "24:00", "time of day"),
        (Unit.DAY, "6:30", "time of day"),
        (Unit.DAY, "٠٦:30", "time of day"),
        (Unit.DAY, "06:60", "time of day"),
        (Unit.WEEK, "Monday", "weekday"),
        (Unit.WEEK, "1", "weekday"),
        (Unit.MONTH, "0", "from 1 to 31"),
        (Unit.MONTH, "32", "from 1 to 31"),
        (Unit.MONTH, "01", "from 1 to 31"),
        (Unit.YEAR, "13-01", "month and a day"),
        (Unit.YEAR, "02-30", "month and a day"),
        (Unit.YEAR, "04-31", "month and a day"),
        (Unit.YEAR, "1-1", "month and a day"),
    ],
)
def test_no_window_begins_anywhere_else(unit: Unit, starts: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Calendar(unit, "UTC", starts)


@pytest.mark.parametrize("month", range(1, 13))
def test_a_year_can_begin_on_each_of_its_days_and_on_no_other(month: int) -> None:
    for day in range(40):
        text = f"{month:02}-{day:02}"
        try:
            datetime.fromisoformat(f"2000-{text}")
        except ValueError:
            with pytest.raises(ValueError, match="month and a day"):
                check_start(Unit.YEAR, text)
        else:
            check_start(Unit.YEAR, text)


@pytest.mark.parametrize(
    ("unit", "days"), [(Unit.DAY, 1), (Unit.WEEK, 7), (Unit.MONTH, 30), (Unit.YEAR, 365)]
)
def test_the_nominal_length(unit: Unit, days: int) -> None:
    assert Calendar(unit).length == days * DAY
