"""Metrics: every number that Weir publishes, on one page, and that page in Prometheus' words.

prometheus_client decides when it is imported whether it counts for one process or for many: with
several workers PROMETHEUS_MULTIPROC_DIR has to be there before the first import of this module.
Labels come from closed sets only, whatever a client sends; what is in none of them is `other`.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.domain.durations import Durations, durations
from service.domain.exchange import Exchange
from service.domain.usage import OUTCOMES

OTHER = "other"
ROUTES = ("chat", "models", OTHER)
KINDS = ("estimated", "reserved", "prompt", "completion", "cached", "reasoning", "overrun", "returned")
SOURCES = ("provider", "local", "reservation", "none")
REASONS = ("limit", "never", "ledger", "blocked")
CALLS = ("reserve", "settle", "renew", "release", "peek")
RESULTS = ("ok", "error", "late")
MODES = ("refuse", "allow", "local")
UPSTREAM_ERRORS = ("refused", "broken", "timeout", "status")

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)

# Upper bounds in seconds: of work of ours, of one call to the ledger, and of waiting for a model.
_OWN = {"buckets": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)}
_STORE = {"buckets": (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)}
_MODEL = {"buckets": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)}
# What the gauges of several workers are together; those of workers that are gone do not count.
_SUM, _LEAST, _MOST = ({"multiprocess_mode": mode} for mode in ("livesum", "livemin", "livemax"))


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, what it says, its labels; a histogram's buckets, or how workers' gauges add up."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


COUNTERS = (
    Family("weir_requests_total", "Exchanges that ended.", ("route", "outcome", "status")),
    Family("weir_tokens_total", "Tokens, by what they are to us.", ("model", "kind")),
    Family("weir_usage_total", "Exchanges by who said what was used.", ("source",)),
    Family("weir_refusals_total", "Refusals, shadow ones included.", ("policy", "reason", "enforced")),
    Family("weir_ledger_calls_total", "Calls to the ledger.", ("call", "result")),
    Family("weir_reservations_lost_total", "Reservations, by subject, that nobody settled in time."),
    Family("weir_degraded_total", "Requests decided without the ledger, and how.", ("policy", "mode")),
    Family("weir_settles_dropped_total", "Settlements lost, as too many waited for the ledger."),
    Family("weir_settles_forgotten_total", "Settlements that came too late to be counted safely."),
    Family("weir_upstream_errors_total", "Failures of upstream.", ("kind",)),
    Family("weir_log_records_dropped_total", "Log records lost because nobody read the log."),
)
HISTOGRAMS = (
    Family("weir_overhead_seconds", "Weir's own part of an exchange.", ("route",), _OWN),
    Family("weir_upstream_seconds", "From sending upstream to its head.", ("route",), _MODEL),
    Family("weir_first_byte_seconds", "From received to the first byte out.", ("route",), _MODEL),
    Family("weir_request_seconds", "From received to the end of the exchange.", ("route",), _MODEL),
    Family("weir_ledger_seconds", "How long a call to the ledger took.", ("call",), _STORE),
)
GAUGES = (
    Family("weir_in_flight", "Exchanges that are open now.", ("route",), _SUM),
    Family("weir_ledger_available", "1 while every worker reaches the ledger, else 0.", (), _LEAST),
    Family("weir_ledger_breaker", "Whether the ledger is asked: 0 yes, 1 now and then, 2 no.", (), _MOST),
    Family("weir_workers_alive", "Workers that share the ledger, as far as they know.", (), _MOST),
    Family("weir_reservations_open", "Reservations that this gateway holds open.", (), _SUM),
    Family("weir_settles_pending", "Settlements that wait for the ledger to come back.", (), _SUM),
    Family("weir_build_info", "The version that runs; always 1.", ("version",), _MOST),
    Family("weir_definition_info", "The API definition in force; always 1.", ("revision",), _MOST),
)


class Metrics:
    """The numbers of one process. `models` are the names that may be labels."""

    def __init__(self, models: Sequence[str] = (), registry: CollectorRegistry | None = None) -> None:
        _count_as_one_process()
        self.registry = CollectorRegistry() if registry is None else registry
        self._models = frozenset(models)
        self._policies: set[str] = set()
        self._counters = {family.name: _children(family, Counter, self.registry) for family in COUNTERS}
        self._histograms = {family.name: _children(family, Histogram, self.registry) for family in HISTOGRAMS}
        self._gauges = {family.name: _children(family, Gauge, self.registry) for family in GAUGES}
        for route in ROUTES:  # a dead process of the same id may have left its numbers in the file
            self._gauges["weir_in_flight"](route).set(0)
        self.reservations_open(0)
        self.settles_pending(0)
        self.ledger_available(True)

    def declare(self, policies: Iterable[str]) -> None:
        """These policies may be labels, besides those declared before."""
        self._policies.update(policies)

    def started(self, route: str) -> None:
        """An exchange began."""
        self._gauges["weir_in_flight"](_one_of(route, ROUTES)).inc()

    def ended(self, exchange: Exchange) -> None:
        """An exchange that `started` is over: its outcome, times, estimate and usage are final."""
        route = _one_of(exchange.route, ROUTES)
        status = _status(exchange.answer.status if exchange.answer else None)
        self._counters["weir_requests_total"](route, _one_of(exchange.outcome, OUTCOMES), status).inc()
        self._gauges["weir_in_flight"](route).dec()
        self._timed(route, durations(exchange))
        self._used(exchange)

    def _timed(self, route: str, spent: Durations) -> None:
        self._histograms["weir_request_seconds"](route).observe(spent.total)
        self._histograms["weir_overhead_seconds"](route).observe(spent.own)
        if spent.upstream is not None:
            self._histograms["weir_upstream_seconds"](route).observe(spent.upstream)
        if spent.first_byte is not None:
            self._histograms["weir_first_byte_seconds"](route).observe(spent.first_byte)

    def _used(self, exchange: Exchange) -> None:
        model = exchange.chat.model if exchange.chat else OTHER
        if exchange.estimate:
            self.tokens(model, "estimated", exchange.estimate.total)
        if usage := exchange.usage:
            self._counters["weir_usage_total"](_one_of(usage.source, SOURCES)).inc()
            for kind in ("prompt", "completion", "cached", "reasoning"):
                self.tokens(model, kind, getattr(usage, kind))

    def tokens(self, model: str, kind: str, count: int) -> None:
        """Tokens of one of KINDS. `ended` counts all but reserved, returned and overrun itself."""
        if count > 0:
            self._counters["weir_tokens_total"](_one_of(model, self._models), _one_of(kind, KINDS)).inc(count)

    def refused(self, policy: str, reason: str, enforced: bool) -> None:
        """A policy refused; in shadow mode (not enforced) it only would have."""
        labels = _one_of(policy, self._policies), _one_of(reason, REASONS), "true" if enforced else "false"
        self._counters["weir_refusals_total"](*labels).inc()

    def ledger_call(self, call: str, result: str, seconds: float) -> None:
        """One of CALLS ended with one of RESULTS."""
        call = _one_of(call, CALLS)
        self._counters["weir_ledger_calls_total"](call, _one_of(result, RESULTS)).inc()
        self._histograms["weir_ledger_seconds"](call).observe(seconds)

    def ledger_available(self, available: bool) -> None:
        """Whether this worker reaches the ledger."""
        self._gauges["weir_ledger_available"]().set(1 if available else 0)

    def degraded(self, policy: str, mode: str) -> None:
        """A request was decided without the ledger, as one of MODES says."""
        self._counters["weir_degraded_total"](_one_of(policy, self._policies), _one_of(mode, MODES)).inc()

    def ledger_breaker(self, state: int) -> None:
        """What this worker's breaker lets through: 0 everything, 1 one call to see, 2 nothing."""
        self._gauges["weir_ledger_breaker"]().set(state)

    def workers_alive(self, count: int) -> None:
        """So many workers does this one know of, itself included."""
        self._gauges["weir_workers_alive"]().set(count)

    def settles_lost(self, *, dropped: int, forgotten: int) -> None:
        """So many settlements were dropped, and forgotten, that will not be counted any more."""
        self._counters["weir_settles_dropped_total"]().inc(dropped)
        self._counters["weir_settles_forgotten_total"]().inc(forgotten)

    def reservations_open(self, count: int) -> None:
        """So many reservations does this worker hold open."""
        self._gauges["weir_reservations_open"]().set(count)

    def reservations_lost(self, count: int = 1) -> None:
        """So many reservations ended by their lease."""
        self._counters["weir_reservations_lost_total"]().inc(count)

    def settles_pending(self, count: int) -> None:
        """So many settlements wait in this worker's outbox."""
        self._gauges["weir_settles_pending"]().set(count)

    def upstream_error(self, kind: str) -> None:
        """Upstream failed in one of the ways of UPSTREAM_ERRORS."""
        self._counters["weir_upstream_errors_total"](_one_of(kind, UPSTREAM_ERRORS)).inc()

    def log_records_dropped(self, count: int = 1) -> None:
        """So many log records were lost."""
        self._counters["weir_log_records_dropped_total"]().inc(count)

    def runs(self, *, version: str, revision: str) -> None:
        """This version of Weir runs, with this revision of the definition."""
        self._gauges["weir_build_info"](version).set(1)
        self._gauges["weir_definition_info"](revision).set(1)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The numbers of this process alone: content, and its media type."""
        return _exposed(self.registry, accept)


def page(accept: str, *, directory: str) -> tuple[bytes, str]:
    """The numbers of all processes that count into `directory`: content, and its media type.

    Needs no Metrics in the process that asks. The gauges of processes that are gone are dropped first.
    """
    _forget_the_dead(directory)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    return _exposed(registry, accept)


def _exposed(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def _count_as_one_process() -> None:
    """Ask the system once who we are; the library would, thirty times an exchange, after every number."""
    if values.ValueClass is not values.MutexValue:
        pid = os.getpid()
        values.ValueClass = values.MultiProcessValue(lambda: pid)  # type: ignore[no-untyped-call]


def _forget_the_dead(directory: str) -> None:
    files = (re.fullmatch(r"gauge_live[a-z]+_(\d+)\.db", name) for name in os.listdir(directory))
    for pid in {int(file[1]) for file in files if file}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another scrape was faster
                mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
        except PermissionError:
            continue  # somebody else's process, so alive


def _children(family: Family, kind: type[_Metric], registry: CollectorRegistry) -> Callable[..., _Metric]:
    """What gives a metric's child by its labels' values: looked up once each, as `labels()` costs 3 µs."""
    metric = kind(family.name, family.help, family.labels, registry=registry, **family.options)
    return functools.cache(metric.labels) if family.labels else lambda: metric


def _one_of(value: str, known: Collection[str]) -> str:
    return value if value in known else OTHER


def _status(status: int | None) -> str:
    return "none" if status is None else str(status) if 100 <= status <= 599 else OTHER
