"""Ledger: how it does, what waits for it, and what is lost; a part of Gateway."""

from deploy.grafana.source.panels import Panel, Row, worse_above
from deploy.grafana.source.promql import Query, gauge, increase, or_zero, quantile, rate

BREAKER = {"0": "closed", "1": "half-open", "2": "open"}

_CALLS = "weir_ledger_calls_total"

LEDGER = Row(
    "Ledger",
    (
        Panel(
            "Calls",
            "Calls to the ledger, by what was asked.",
            "cps",
            (Query(rate(_CALLS, by="call"), "{{call}}"),),
            stacked=True,
        ),
        Panel(
            "Latency, median",
            "How long half of the calls took at most, as a worker sees it. Logarithmic.",
            "s",
            (Query(quantile(50, "weir_ledger_seconds", by="call"), "{{call}}"),),
            logarithmic=True,
        ),
        Panel(
            "Latency, 99th percentile",
            "How long 99 of 100 calls took at most, as a worker sees it. Logarithmic.",
            "s",
            (Query(quantile(99, "weir_ledger_seconds", by="call"), "{{call}}"),),
            logarithmic=True,
            colours=worse_above(0.025, 0.1),
        ),
        Panel(
            "Calls that failed",
            "Calls that ended in an error, or came too late to count.",
            "cps",
            (
                Query(
                    or_zero(rate(_CALLS, 'result!="ok"', by="call, result"), "call"),
                    "{{call}} {{result}}",
                ),
            ),
            colours=worse_above(0.001, 1),
        ),
        Panel(
            "Breaker by gateway",
            "The worst breaker of each gateway's workers: 0 closed, 1 half-open, 2 open.",
            "none",
            (Query(gauge("max", "weir_ledger_breaker", "instance"), "{{instance}}"),),
            words=BREAKER,
        ),
        Panel(
            "Decided without the ledger",
            "Requests of each policy while the ledger was away: refused, allowed, or counted by a worker's "
            "share.",
            "cps",
            (
                Query(
                    or_zero(rate("weir_degraded_total", by="policy, mode"), "policy"),
                    "{{policy}} {{mode}}",
                ),
            ),
            colours=worse_above(0.001, 1),
        ),
    ),
)
LOST = Row(
    "What waits, and what is lost",
    (
        Panel(
            "Outbox by gateway",
            "Settlements that wait for the ledger to come back.",
            "short",
            (Query(gauge("sum", "weir_settles_pending", "instance"), "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Usage lost",
            "Leases that ended with nobody having settled, once for each subject; settlements that found no "
            "room to wait; and such as came too late. All should be 0.",
            "short",
            (
                Query(or_zero(increase("weir_reservations_lost_total")), "leases"),
                Query(or_zero(increase("weir_settles_dropped_total")), "settlements dropped"),
                Query(or_zero(increase("weir_settles_forgotten_total")), "settlements forgotten"),
            ),
            colours=worse_above(1, 100),
        ),
        Panel(
            "Records dropped",
            "Log records that were lost because nobody read the log, and exchanges that are missing in what "
            "`weir tail` shows.",
            "short",
            (
                Query(or_zero(increase("weir_log_records_dropped_total")), "log records"),
                Query(or_zero(increase("weir_exchanges_dropped_total")), "exchanges"),
            ),
            colours=worse_above(1, 1000),
        ),
    ),
)
