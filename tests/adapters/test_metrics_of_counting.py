"""The metrics of counting: how far estimates were off, what counting cost, and what a page says of either."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from service.adapters.metrics import HISTOGRAMS, Metrics, page
from service.domain.chat import Chat
from service.domain.exchange import Exchange
from service.domain.tokens.work import Work
from service.domain.usage import MOST_TOKENS, Estimate, Usage

ROOT = Path(__file__).parents[2]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
NAME = "weir_estimate_error_ratio"
(BOUNDS,) = (family.options["buckets"] for family in HISTOGRAMS if family.name == NAME)

# A process whose prompts were estimated at 100 tokens each; its arguments are what was really used.
WORKER = """
import sys
from tests.adapters.test_metrics_of_counting import ended
from service.adapters.metrics import Metrics
metrics = Metrics(["gpt-5"])
for used in sys.argv[1:]:
    metrics.ended(ended(100, int(used)))
"""


def ended(estimated: int, used: int, *, model: str = "gpt-5") -> Exchange:
    """An exchange that is over, its prompt estimated so and its completion exactly."""
    made = Exchange("POST", "/v1/chat/completions", b"", [])
    made.route, made.outcome = "chat", "complete"
    made.chat = Chat(document={}, model=model)
    made.estimate = Estimate(estimated, 10)
    made.usage = Usage(used, 10, "provider")
    return made


def work(*, cached: int = 0, counted: int = 0, bounded: int = 0) -> Work:
    made = Work(lambda: 0.0)
    made.cached, made.counted, made.bounded = cached, counted, bounded
    return made


def shown(metrics: Metrics, name: str) -> set[str]:
    return {line for line in metrics.page()[0].decode().splitlines() if line.startswith(name)}


def within(metrics: Metrics, low: float, high: float, *, model: str = "gpt-5", part: str = "prompt") -> float:
    """How many errors are above `low` and at most `high`."""
    labels = {"model": model, "part": part}
    beyond, up_to = (
        metrics.registry.get_sample_value(f"{NAME}_bucket", {**labels, "le": le(bound)})
        for bound in (low, high)
    )
    assert beyond is not None
    assert up_to is not None
    return up_to - beyond


def le(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))


def the_errors(page: str) -> Metric:
    """The errors on a page, as the parser of OpenMetrics reads it, which is strict."""
    families: Iterator[Metric] = parsed(page)  # type: ignore[no-untyped-call]
    (found,) = (family for family in families if family.name == NAME)
    return found


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the processes started from here count into."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def counted_by_two(directory: Path, accept: str) -> str:
    """The page of two processes: prompts of 80 and 100 tokens in one, of 100 and 125 in the other."""
    for used in (("80", "100"), ("100", "125")):
        subprocess.run([sys.executable, "-c", WORKER, *used], cwd=ROOT, check=True)
    return page(accept, directory=str(directory))[0].decode()


# Errors of estimates


@pytest.mark.parametrize(
    ("estimated", "used", "low", "high"),
    [
        (100, 100, -1e-9, 0.0),
        (MOST_TOKENS + 1, MOST_TOKENS, -0.001, -1e-9),
        (MOST_TOKENS - 1, MOST_TOKENS, 0.0, 0.001),
        (997, 1000, 0.002, 0.005),
        (1003, 1000, -0.005, -0.002),
        (0, 1000, 0.5, 1.0),
        (1999, 1000, -1.0, -0.5),
        (5000, 1000, -10.0, -1.0),
        (50_000, 1000, -100.0, -10.0),
    ],
)
def test_an_error_is_counted_between_the_bounds_around_it(
    estimated: int, used: int, low: float, high: float
) -> None:
    metrics = Metrics(["gpt-5"])
    metrics.ended(ended(estimated, used))
    assert within(metrics, low, high) == 1
    assert within(metrics, -100, float("inf")) == 1


def test_an_error_beyond_all_bounds_is_counted_in_the_first_bucket() -> None:
    metrics = Metrics(["gpt-5"])
    metrics.ended(ended(MOST_TOKENS, 1))
    assert f'{NAME}_bucket{{le="-100.0",model="gpt-5",part="prompt"}} 1.0' in shown(metrics, NAME)


def test_the_buckets_are_as_fine_below_0_as_above() -> None:
    near = [bound for bound in BOUNDS if abs(bound) >= 0.001 and bound >= -1]
    assert near == [-bound for bound in reversed(near)]
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_a_model_is_a_label_only_where_it_is_known() -> None:
    metrics = Metrics(["gpt-5"])
    for number in range(100):
        metrics.ended(ended(100, 100, model=f"model-{number}"))
    assert within(metrics, -1e-9, 0.0, model="other") == 100
    assert len([line for line in shown(metrics, NAME) if 'le="+Inf"' in line]) == 2


def test_prompts_and_completions_are_told_apart() -> None:
    metrics = Metrics(["gpt-5"])
    metrics.ended(ended(90, 100))
    assert within(metrics, -1e-9, 0.0, part="completion") == 1
    assert within(metrics, -1e-9, 0.0, part="prompt") == 0


def test_what_was_not_estimated_makes_no_series() -> None:
    metrics = Metrics(["gpt-5"])
    free = ended(100, 100)
    free.estimate = None
    metrics.ended(free)
    assert shown(metrics, NAME) == set()


# Pages


def test_the_page_of_one_process_is_open_metrics_with_negative_errors_on_it() -> None:
    metrics = Metrics(["gpt-5"])
    metrics.ended(ended(100, 80))
    errors = the_errors(metrics.page(OPEN_METRICS)[0].decode())
    assert {sample.name for sample in errors.samples} == {f"{NAME}_bucket", f"{NAME}_created"}


def test_the_page_of_many_processes_is_open_metrics_with_negative_errors_on_it(shared: Path) -> None:
    errors = the_errors(counted_by_two(shared, OPEN_METRICS))
    assert {sample.name for sample in errors.samples} == {f"{NAME}_bucket"}


def test_the_errors_of_many_processes_add_up_in_the_order_of_their_bounds(shared: Path) -> None:
    errors = the_errors(counted_by_two(shared, OPEN_METRICS))
    prompts = [sample for sample in errors.samples if sample.labels["part"] == "prompt"]
    assert [float(sample.labels["le"]) for sample in prompts] == [*BOUNDS, float("inf")]
    assert {sample.labels["le"]: sample.value for sample in prompts}.items() >= {
        "-0.5": 0,
        "-0.2": 1,
        "-1e-09": 1,
        "0.0": 3,
        "0.1": 3,
        "0.2": 4,
        "+Inf": 4,
    }.items()


def test_other_histograms_keep_their_sums(shared: Path) -> None:
    metrics = Metrics(["gpt-5"])
    metrics.ended(ended(100, 80))
    for text in (metrics.page()[0].decode(), counted_by_two(shared, "")):
        assert 'weir_request_seconds_sum{route="chat"}' in text
        assert 'weir_request_seconds_count{route="chat"}' in text
        assert f"{NAME}_sum" not in text
        assert f"{NAME}_count" not in text


# What counting cost


def test_characters_are_counted_by_how_their_tokens_came() -> None:
    metrics = Metrics()
    metrics.counted(work(cached=900, counted=90, bounded=10))
    metrics.counted(work(cached=100))
    assert shown(metrics, "weir_counted_characters_total") == {
        'weir_counted_characters_total{how="cached"} 1000.0',
        'weir_counted_characters_total{how="counted"} 90.0',
        'weir_counted_characters_total{how="bounded"} 10.0',
    }


@pytest.mark.parametrize(
    ("done", "how"),
    [
        (work(cached=900, counted=90, bounded=1), "bounded"),
        (work(cached=900, counted=1), "counted"),
        (work(counted=1), "counted"),
        (work(cached=1), "cached"),
        (work(), "cached"),
    ],
    ids=["bounded", "a little counted", "all counted", "all cached", "empty"],
)
def test_a_request_was_counted_as_the_worst_of_its_characters(done: Work, how: str) -> None:
    metrics = Metrics()
    metrics.counted(done)
    assert shown(metrics, "weir_counted_requests_total") == {
        f'weir_counted_requests_total{{how="{how}"}} 1.0'
    }
