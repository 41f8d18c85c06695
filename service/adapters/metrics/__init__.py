"""Metrics: every number that Weir publishes, on one page, and that page in Prometheus' words.

prometheus_client decides when it is imported whether it counts for one process or for many: with
several workers PROMETHEUS_MULTIPROC_DIR has to be there before the first import of this module.
Labels come from closed sets only, whatever a client sends; what is in none of them is `other`.
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from service.adapters.metrics.exposition import exposed, page
from service.adapters.metrics.families import COUNTERS, GAUGES, HISTOGRAMS, Family
from service.adapters.metrics.labels import (
    CALLS,
    HOWS,
    KINDS,
    MODES,
    OTHER,
    REASONS,
    RESULTS,
    ROUTES,
    SOURCES,
    UPSTREAM_ERRORS,
    one_of,
    status_label,
)
from service.adapters.metrics.top import TOP, TopSubjects
from service.domain.drift import drift
from service.domain.durations import Durations, durations
from service.domain.exchange import Exchange
from service.domain.tokens.work import Work
from service.domain.usage import OUTCOMES, Usage

__all__ = ["COUNTERS", "GAUGES", "HISTOGRAMS", "TOP", "Family", "Metrics", "TopSubjects", "page"]

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Metrics:
    """The numbers of one process. `models` are the names that may be labels."""

    def __init__(self, models: Sequence[str] = (), registry: CollectorRegistry | None = None) -> None:
        self._is_alone = _count_as_one_process()
        self.registry = CollectorRegistry() if registry is None else registry
        self._models = frozenset(models)
        self._policies: set[str] = set()
        self._counters = {family.name: _children(family, Counter, self.registry) for family in COUNTERS}
        self._histograms = {family.name: _children(family, Histogram, self.registry) for family in HISTOGRAMS}
        self._gauges = {family.name: _children(family, Gauge, self.registry) for family in GAUGES}
        for route in ROUTES:  # a dead process of the same id may have left its numbers in the file
            self._gauges["weir_in_flight"](route).set(0)
        self._gauges["weir_tokens_held"]().set(0)
        self.reservations_open(0)
        self.settles_pending(0)
        self.ledger_available(True)

    def declare(self, policies: Iterable[str]) -> None:
        """These policies may be labels, besides those declared before."""
        self._policies.update(policies)

    def started(self, route: str) -> None:
        """An exchange began."""
        self._gauges["weir_in_flight"](one_of(route, ROUTES)).inc()

    def ended(self, exchange: Exchange) -> None:
        """An exchange that `started` is over: its outcome, times, estimate and usage are final."""
        route = one_of(exchange.route, ROUTES)
        status = status_label(exchange.answer.status if exchange.answer else None)
        self._counters["weir_requests_total"](route, one_of(exchange.outcome, OUTCOMES), status).inc()
        self._gauges["weir_in_flight"](route).dec()
        self._timed(route, durations(exchange), self._exemplar(exchange))
        self._used(exchange)

    def _timed(self, route: str, spent: Durations, exemplar: dict[str, str] | None) -> None:
        self._histograms["weir_request_seconds"](route).observe(spent.total, exemplar)
        self._histograms["weir_overhead_seconds"](route).observe(spent.own)
        if spent.upstream is not None:
            self._histograms["weir_upstream_seconds"](route).observe(spent.upstream)
        if spent.first_byte is not None:
            self._histograms["weir_first_byte_seconds"](route).observe(spent.first_byte)

    def _exemplar(self, exchange: Exchange) -> dict[str, str] | None:
        """What leads from a number to an exchange; the library keeps it where it counts for one process."""
        return {"request_id": exchange.id, "trace_id": exchange.trace.id} if self._is_alone else None

    def _used(self, exchange: Exchange) -> None:
        model = exchange.chat.model if exchange.chat else OTHER
        if exchange.estimate:
            self.tokens(model, "estimated", exchange.estimate.total)
        if usage := exchange.usage:
            self._counters["weir_usage_total"](one_of(usage.source, SOURCES)).inc()
            for kind in ("prompt", "completion", "cached", "reasoning"):
                self.tokens(model, kind, getattr(usage, kind))
            self._told_as_gen_ai(one_of(model, self._models), usage)
        for part, error in drift(exchange):
            self._histograms["weir_estimate_error_ratio"](one_of(model, self._models), part).observe(error)

    def _told_as_gen_ai(self, model: str, usage: Usage) -> None:
        for direction, count in (("input", usage.prompt), ("output", usage.completion)):
            name = f"gen_ai_client_inference_usage_{direction}_tokens_total"
            self._counters[name](model, "openai", "chat").inc(count)

    def tokens(self, model: str, kind: str, count: int) -> None:
        """Tokens of one of KINDS. `ended` counts all but reserved, returned and overrun itself."""
        if count > 0:
            self._counters["weir_tokens_total"](one_of(model, self._models), one_of(kind, KINDS)).inc(count)

    def counted(self, work: Work) -> None:
        """The prompt of a request was counted, and this is how: as the worst of its characters were."""
        worst = "bounded" if work.bounded else "counted" if work.counted else "cached"
        self._counters["weir_counted_requests_total"](worst).inc()
        for how in HOWS:
            if characters := getattr(work, how):
                self._counters["weir_counted_characters_total"](how).inc(characters)

    def refused(self, policy: str, reason: str, enforced: bool) -> None:
        """A policy refused; in shadow mode (not enforced) it only would have."""
        labels = one_of(policy, self._policies), one_of(reason, REASONS), "true" if enforced else "false"
        self._counters["weir_refusals_total"](*labels).inc()

    def ledger_call(self, call: str, result: str, seconds: float) -> None:
        """One of CALLS ended with one of RESULTS."""
        call = one_of(call, CALLS)
        self._counters["weir_ledger_calls_total"](call, one_of(result, RESULTS)).inc()
        self._histograms["weir_ledger_seconds"](call).observe(seconds)

    def ledger_available(self, available: bool) -> None:
        """Whether this worker reaches the ledger."""
        self._gauges["weir_ledger_available"]().set(1 if available else 0)

    def degraded(self, policy: str, mode: str) -> None:
        """A request was decided without the ledger, as one of MODES says."""
        self._counters["weir_degraded_total"](one_of(policy, self._policies), one_of(mode, MODES)).inc()

    def ledger_breaker(self, state: int) -> None:
        """What this worker's breaker lets through: 0 everything, 1 one call to see, 2 nothing."""
        self._gauges["weir_ledger_breaker"]().set(state)

    def clock_skew(self, seconds: float) -> None:
        """So far are this worker's clock and the ledger's apart, ahead or behind."""
        self._gauges["weir_clock_skew_seconds"]().set(abs(seconds))

    def vitals(self, worker: int, *, lag: float, cpu: float, memory: int | None) -> None:
        """How a worker is: its loop ran `lag` s late, it worked for `cpu` s more, and has `memory` bytes."""
        self._histograms["weir_loop_lag_seconds"]().observe(lag)
        self._counters["weir_worker_cpu_seconds_total"](str(worker)).inc(cpu)
        if memory is not None:
            self._gauges["weir_worker_memory_bytes"](str(worker)).set(memory)

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

    def held(self, tokens: int) -> None:
        """So many tokens more are reserved, or, below 0, are so no longer."""
        self._gauges["weir_tokens_held"]().inc(tokens)

    def settles_pending(self, count: int) -> None:
        """So many settlements wait in this worker's outbox."""
        self._gauges["weir_settles_pending"]().set(count)

    def upstream_error(self, kind: str) -> None:
        """Upstream failed in one of the ways of UPSTREAM_ERRORS."""
        self._counters["weir_upstream_errors_total"](one_of(kind, UPSTREAM_ERRORS)).inc()

    def log_records_dropped(self, count: int = 1) -> None:
        """So many log records were lost."""
        self._counters["weir_log_records_dropped_total"]().inc(count)

    def exchanges_dropped(self, count: int) -> None:
        """So many exchanges could not be kept until the stream of exchanges took them."""
        self._counters["weir_exchanges_dropped_total"]().inc(count)

    def runs(self, *, version: str, revision: str, loaded: float) -> None:
        """This version of Weir runs, with this revision of the definition, `loaded` then in Unix time.

        Who reads the definition tells it before its workers do; theirs is the later time, and not shown.
        """
        self._gauges["weir_definition_loaded_timestamp_seconds"]().set(loaded)
        self._gauges["weir_build_info"](version).set(1)
        self._gauges["weir_definition_info"](revision).set(1)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The numbers of this process alone: content, and its media type."""
        return exposed(self.registry, accept)


def _count_as_one_process() -> bool:
    """Ask the system once who we are; the library would, thirty times an exchange, after every number.

    Whether the library counts for this process alone.
    """
    if values.ValueClass is values.MutexValue:
        return True
    pid = os.getpid()
    values.ValueClass = values.MultiProcessValue(lambda: pid)  # type: ignore[no-untyped-call]
    return False


def _children(family: Family, kind: type[_Metric], registry: CollectorRegistry) -> Callable[..., _Metric]:
    """What gives a metric's child by its labels' values: looked up once each, as `labels()` costs 3 µs."""
    metric = kind(family.name, family.help, family.labels, registry=registry, **family.options)
    return functools.cache(metric.labels) if family.labels else lambda: metric
