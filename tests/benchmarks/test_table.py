"""Table: medians, ratios of the same round, and what must not be."""

from benchmarks.load import Heard
from benchmarks.table import Round, faults, ratios, table
from benchmarks.targets import BARE, MODEL, WEIR


def round_of(rate: int, *, cpu: float | None = 0.5, refused: int = 0, lost: int = 0) -> Round:
    heard = Heard(answers=rate, seconds=1.0, p50=2.0, p99=8.0, refused=refused, lost=lost)
    return Round(heard, cpu, 40.4)


def test_a_line_shows_the_medians_and_the_most_memory() -> None:
    rounds = [round_of(1000, cpu=0.3), round_of(9000, cpu=0.9), round_of(2000, cpu=0.4)]
    assert table({MODEL: rounds}).splitlines()[1].split()[-7:] == [
        *("2,000", "2.0", "8.0", "0.400", "40", "0", "-")
    ]


def test_the_columns_stand_below_their_heads() -> None:
    head, *lines = table({BARE: [round_of(100)], WEIR: [round_of(12_345)]}).splitlines()[:3]
    assert [len(line) for line in lines] == [len(head), len(head)]


def test_a_ratio_is_that_of_two_measurements_of_one_round() -> None:
    results = {BARE: [round_of(100), round_of(50)], WEIR: [round_of(300), round_of(250)]}
    assert ratios(results, WEIR) == [3.0, 5.0]
    assert "of each round: 3.0, 5.0; median 4.0" in table(results)


def test_without_the_bare_pass_through_there_is_no_ratio() -> None:
    assert ratios({WEIR: [round_of(300)]}, WEIR) == []


def test_where_nobody_counts_cpu_time_none_is_shown() -> None:
    assert table({WEIR: [round_of(100, cpu=None)]}).splitlines()[1].split()[-4] == "-"


def test_answers_that_are_no_success_are_a_fault() -> None:
    results = {BARE: [round_of(10), round_of(10)], WEIR: [round_of(10), round_of(10, refused=3, lost=1)]}
    assert faults(results) == ["Weir, everything on: 20 answers, 3 of them not 2xx, 1 never came"]


def test_no_answers_at_all_are_a_fault() -> None:
    assert faults({BARE: [round_of(0)]})
