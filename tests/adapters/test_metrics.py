"""Metrics: what is counted, under which labels, and the page of many processes."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from service.adapters.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metrics, page
from service.domain.chat import Chat
from service.domain.durations import durations
from service.domain.exchange import Answer, Credential, Exchange
from service.domain.usage import Estimate, Usage

WORKER = """
import sys
from service.adapters.metrics import Metrics
metrics = Metrics()
metrics.started("chat")
metrics.upstream_error("timeout")
metrics.held(100)
metrics.clock_skew(0.5 if sys.argv[1] == "away" else 0.1)
metrics.vitals(int(sys.argv[1] == "away"), lag=0.0, cpu=2.0, memory=4096)
metrics.ledger_available(sys.argv[1] == "reachable")
print("ready", flush=True)
sys.stdin.read()
"""

REBORN = """
import os, sys
directory = os.path.dirname(sys.argv[1])
os.rename(sys.argv[1], f"{directory}/gauge_livesum_{os.getpid()}.db")
from service.adapters.metrics import Metrics, page
Metrics()
print(page("", directory=directory)[0].decode())
"""


def exchange(*, model: str = "gpt-4o", outcome: str = "complete", status: int = 200) -> Exchange:
    """An exchange of 10 s: 1 s until sent, 6 s until the head, 0.5 s until the first byte."""
    made = Exchange("POST", "/v1/chat/completions", b"", [], clock=lambda: 100.0)
    made.route, made.outcome = "chat", outcome
    made.chat = Chat(document={}, model=model)
    made.answer = Answer(status, [], b"{}")
    made.times.sent, made.times.head = 101.0, 107.0
    made.times.first_byte, made.times.ended = 107.5, 110.0
    return made


def lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.page()[0].decode().splitlines() if not line.startswith("#")]


async def nothing() -> AsyncIterator[bytes]:
    yield b""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the processes started from here count into."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


@contextmanager
def worker(ledger: str = "reachable") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", WORKER, ledger]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_an_exchange_that_ended_is_counted_with_its_tokens_and_times() -> None:
    metrics = Metrics(["gpt-4o"])
    done = exchange()
    done.estimate = Estimate(prompt=10, completion=90)
    done.usage = Usage(prompt=11, completion=22, source="provider", cached=3, reasoning=4)
    metrics.started("chat")
    metrics.ended(done)
    assert set(lines(metrics)) >= {
        'weir_requests_total{outcome="complete",route="chat",status="200"} 1.0',
        'weir_tokens_total{kind="estimated",model="gpt-4o"} 100.0',
        'weir_tokens_total{kind="prompt",model="gpt-4o"} 11.0',
        'weir_tokens_total{kind="completion",model="gpt-4o"} 22.0',
        'weir_tokens_total{kind="cached",model="gpt-4o"} 3.0',
        'weir_tokens_total{kind="reasoning",model="gpt-4o"} 4.0',
        'weir_usage_total{source="provider"} 1.0',
        'weir_request_seconds_sum{route="chat"} 10.0',
        'weir_upstream_seconds_sum{route="chat"} 6.0',
        'weir_first_byte_seconds_sum{route="chat"} 7.5',
        'weir_overhead_seconds_sum{route="chat"} 1.5',
        'weir_in_flight{route="chat"} 0.0',
    }


def test_an_exchange_without_an_answer_is_counted_too() -> None:
    metrics = Metrics()
    gone = Exchange("POST", "/", b"", [])
    gone.outcome = "client_gone"
    metrics.started(gone.route)
    metrics.ended(gone)
    assert 'weir_requests_total{outcome="client_gone",route="other",status="none"} 1.0' in lines(metrics)


def test_an_exchange_is_in_flight_until_it_ends() -> None:
    metrics = Metrics()
    metrics.started("chat")
    metrics.started("chat")
    metrics.ended(exchange())
    assert 'weir_in_flight{route="chat"} 1.0' in lines(metrics)


def test_waiting_for_the_first_event_of_a_stream_is_not_our_own_time() -> None:
    streamed = exchange()
    streamed.answer = Answer(200, [], nothing())
    assert durations(streamed).own == 1.0
    assert durations(exchange()).own == 1.5


def test_an_answer_of_ours_took_our_own_time_until_its_first_byte() -> None:
    refused = exchange(status=429)
    refused.times.sent = refused.times.head = None
    assert durations(refused).own == 7.5
    refused.times.first_byte = None
    assert durations(refused).own == 10.0
    assert durations(refused).upstream is None


def test_an_exchange_that_goes_on_lasts_until_now() -> None:
    going = exchange()
    going.times.ended = None
    going.clock = lambda: 103.0
    assert durations(going).total == 3.0


def test_the_small_numbers_are_on_the_page() -> None:
    metrics = Metrics()
    metrics.declare(["user-minute"])
    metrics.refused("user-minute", "limit", True)
    metrics.refused("user-minute", "never", False)
    metrics.ledger_call("reserve", "ok", 0.25)
    metrics.ledger_available(False)
    metrics.reservations_open(7)
    metrics.reservations_lost()
    metrics.settles_pending(2)
    metrics.upstream_error("refused")
    metrics.log_records_dropped(5)
    metrics.runs(version="1.2.3", revision="abcdef012345", loaded=1.7e9)
    metrics.held(100)
    metrics.held(-40)
    metrics.clock_skew(-0.25)
    metrics.vitals(3, lag=0.004, cpu=0.5, memory=4096)
    metrics.vitals(3, lag=0.004, cpu=0.25, memory=8192)
    assert set(lines(metrics)) >= {
        'weir_refusals_total{enforced="true",policy="user-minute",reason="limit"} 1.0',
        'weir_refusals_total{enforced="false",policy="user-minute",reason="never"} 1.0',
        'weir_ledger_calls_total{call="reserve",result="ok"} 1.0',
        'weir_ledger_seconds_sum{call="reserve"} 0.25',
        "weir_ledger_available 0.0",
        "weir_reservations_open 7.0",
        "weir_reservations_lost_total 1.0",
        "weir_settles_pending 2.0",
        'weir_upstream_errors_total{kind="refused"} 1.0',
        "weir_log_records_dropped_total 5.0",
        'weir_build_info{version="1.2.3"} 1.0',
        'weir_definition_info{revision="abcdef012345"} 1.0',
        "weir_definition_loaded_timestamp_seconds 1.7e+09",
        "weir_tokens_held 60.0",
        "weir_clock_skew_seconds 0.25",
        'weir_loop_lag_seconds_bucket{le="0.002"} 0.0',
        'weir_loop_lag_seconds_bucket{le="0.005"} 2.0',
        'weir_worker_cpu_seconds_total{worker="3"} 0.75',
        'weir_worker_memory_bytes{worker="3"} 8192.0',
    }


def test_series_do_not_grow_with_what_clients_send() -> None:
    """10,000 users, 1,000 models and paths, and as many invented outcomes: one series each."""
    metrics = Metrics(["gpt-4o"])
    metrics.declare(["user-minute"])
    random = Random(5)

    def name() -> str:
        return random.randbytes(8).hex()

    models, paths = ([name() for _ in range(1000)] for _ in range(2))

    def send() -> None:
        strange = exchange(model=random.choice(models), outcome=name(), status=random.randrange(600, 2000))
        strange.path = strange.route = random.choice(paths)
        strange.user = name()
        strange.credential = Credential(name(), None, name())
        strange.estimate = Estimate(1, 1)
        strange.usage = Usage(prompt=1, completion=1, source=random.choice((name(), "provider")))
        metrics.started(strange.route)
        metrics.ended(strange)
        metrics.refused(name(), name(), True)
        metrics.degraded(name(), name())
        metrics.ledger_call(name(), name(), 0.1)
        metrics.upstream_error(name())
        metrics.tokens("gpt-4o", name(), 1)

    for _ in range(50):
        send()
    before = {line.rpartition(" ")[0] for line in lines(metrics)}
    for _ in range(50, 10_000):
        send()
    assert {line.rpartition(" ")[0] for line in lines(metrics)} == before
    assert 'weir_tokens_total{kind="prompt",model="other"} 10000.0' in lines(metrics)


def test_an_exchange_s_tokens_are_told_in_the_words_of_open_telemetry_too() -> None:
    metrics = Metrics(["gpt-4o"])
    for model in ("gpt-4o", "strange"):
        done = exchange(model=model)
        done.usage = Usage(prompt=11, completion=0, source="provider")
        metrics.ended(done)
    name, said = "gen_ai_client_inference_usage", 'gen_ai_operation_name="chat",gen_ai_provider_name="openai"'
    assert set(lines(metrics)) >= {
        f'{name}_{direction}_tokens_total{{{said},gen_ai_request_model="{model}"}} {count}'
        for direction, count in (("input", 11.0), ("output", 0.0))
        for model in ("gpt-4o", "other")
    }


def test_a_duration_leads_to_the_last_exchange_that_took_as_long() -> None:
    metrics = Metrics()
    done = exchange()
    metrics.ended(done)
    page, _ = metrics.page("application/openmetrics-text; version=1.0.0")
    families: Iterable[Metric] = parsed(page.decode())  # type: ignore[no-untyped-call]
    (durations_,) = (family for family in families if family.name == "weir_request_seconds")
    (exemplar,) = (sample.exemplar for sample in durations_.samples if sample.exemplar)
    assert (exemplar.labels, exemplar.value) == ({"request_id": done.id, "trace_id": done.trace.id}, 10.0)


def test_a_count_of_nothing_makes_no_series() -> None:
    metrics = Metrics(["gpt-4o"])
    metrics.tokens("gpt-4o", "overrun", 0)
    assert not any(line.startswith("weir_tokens_total") for line in lines(metrics))


def test_every_metric_has_our_prefix_and_says_what_it_is() -> None:
    families = (*COUNTERS, *HISTOGRAMS, *GAUGES)
    assert len({family.name for family in families}) == len(families)
    assert all(
        family.name.startswith(("weir_", "gen_ai_")) and family.help.endswith(".") for family in families
    )
    assert not {label for family in families for label in family.labels} & {"user", "credential"}


def test_the_page_is_written_in_the_format_that_was_asked_for() -> None:
    metrics = Metrics()
    assert metrics.page()[1].startswith("text/plain")
    content, media_type = metrics.page("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert content.endswith(b"# EOF\n")


def test_a_killed_worker_keeps_its_counts_and_leaves_the_gauges(shared: Path) -> None:
    with worker(), worker("away") as other:
        both = page("", directory=str(shared))[0].decode().splitlines()
        assert 'weir_in_flight{route="chat"} 2.0' in both
        assert "weir_ledger_available 0.0" in both
        assert "weir_tokens_held 200.0" in both
        assert "weir_clock_skew_seconds 0.5" in both
        assert 'weir_worker_memory_bytes{worker="1"} 4096.0' in both
        other.kill()
        other.wait()
        one = page("", directory=str(shared))[0].decode().splitlines()
        assert 'weir_in_flight{route="chat"} 1.0' in one
        assert "weir_ledger_available 1.0" in one
        assert "weir_tokens_held 100.0" in one
        assert "weir_clock_skew_seconds 0.1" in one
        assert 'weir_worker_memory_bytes{worker="1"}' not in "".join(one)
        assert 'weir_worker_cpu_seconds_total{worker="1"} 2.0' in one
        assert 'weir_upstream_errors_total{kind="timeout"} 2.0' in one


def test_a_worker_with_the_number_of_a_dead_one_does_not_inherit_its_gauges(shared: Path) -> None:
    with worker() as dead:
        left = shared / f"gauge_livesum_{dead.pid}.db"
    reborn = [sys.executable, "-c", REBORN, str(left)]
    shown = subprocess.run(reborn, capture_output=True, text=True, check=True).stdout.splitlines()
    assert 'weir_upstream_errors_total{kind="timeout"} 1.0' in shown
    assert 'weir_in_flight{route="chat"} 0.0' in shown
    assert "weir_tokens_held 0.0" in shown


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault_with_either_page(shared: Path) -> None:
    metrics = Metrics()
    done = exchange()
    done.estimate, done.usage = Estimate(12, 90), Usage(11, 22, source="provider")
    metrics.started("chat")
    metrics.ended(done)
    with worker():
        pages = [metrics.page()[0], page("", directory=str(shared))[0]]
    for content in pages:
        checked = subprocess.run(["promtool", "check", "metrics"], input=content, capture_output=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
