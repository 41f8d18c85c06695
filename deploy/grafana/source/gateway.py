"""Gateway: what Weir itself costs, how the ledger does, and how the workers are."""

from deploy.grafana.source.ledger import BREAKER, LEDGER, LOST
from deploy.grafana.source.panels import INSTANCE, Dashboard, Panel, Row, worse_above, worse_below
from deploy.grafana.source.promql import (
    CHAT,
    Query,
    gauge,
    or_zero,
    quantile,
    quantiles,
    rate,
    series,
    share,
    total,
)

_CHARACTERS = "weir_counted_characters_total"
_EACH = "instance, worker"

_GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Gateways",
            "Gateways that answer Prometheus on their operations port.",
            "short",
            (Query(total("sum", series("up", 'job="weir"'))),),
            colours=worse_below(1),
        ),
        Panel(
            "Workers",
            "Workers that share the ledger, as far as they know of each other.",
            "short",
            (Query(gauge("max", "weir_workers_alive")),),
        ),
        Panel(
            "Own time",
            "What Weir adds to 99 of 100 chat requests at most.",
            "s",
            (Query(quantile(99, "weir_overhead_seconds", CHAT)),),
            colours=worse_above(0.02, 0.05),
        ),
        Panel(
            "Breaker",
            "The worst of all workers' breakers: closed asks the ledger, half-open asks it now and then, "
            "open not.",
            "none",
            (Query(gauge("max", "weir_ledger_breaker")),),
            colours=worse_above(1, 2),
            words=BREAKER,
        ),
        Panel(
            "Outbox",
            "Settlements that wait for the ledger to come back. They go out when it does.",
            "short",
            (Query(gauge("sum", "weir_settles_pending")),),
            colours=worse_above(1, 1000),
        ),
        Panel(
            "Clock skew",
            "How far the clock of a worker and that of the ledger are apart at most. The ledger's counts; "
            "the worker's is for its share while the ledger is away.",
            "s",
            (Query(gauge("max", "weir_clock_skew_seconds")),),
            colours=worse_above(1, 10),
        ),
        Panel(
            "Definition read",
            "When the definition in force was read by the gateway that read it last.",
            "dateTimeFromNow",
            (Query(f"1000 * {gauge('max', 'weir_definition_loaded_timestamp_seconds')}"),),
        ),
        Panel(
            "Version",
            "The versions that run, and on how many gateways.",
            "short",
            (Query(gauge("count", "weir_build_info", "version"), "{{version}}"),),
            named=True,
        ),
    ),
    kind="stat",
    across=8,
)
_COST = Row(
    "What Weir costs",
    (
        Panel(
            "Own time of a chat request",
            "What Weir adds to what upstream takes. Logarithmic.",
            "s",
            quantiles("weir_overhead_seconds", CHAT),
            logarithmic=True,
            colours=worse_above(0.02, 0.05),
        ),
        Panel(
            "Own time by gateway",
            "The 99th percentile of each gateway, over all its routes. Logarithmic.",
            "s",
            (Query(quantile(99, "weir_overhead_seconds", by="instance"), "{{instance}}"),),
            logarithmic=True,
            colours=worse_above(0.02, 0.05),
        ),
        Panel(
            "In flight",
            "Exchanges that are open now, on each gateway.",
            "short",
            (Query(gauge("sum", "weir_in_flight", "instance"), "{{instance}}"),),
            stacked=True,
        ),
    ),
)
_WORKERS = Row(
    "Workers",
    (
        Panel(
            "Loop lag",
            "How much later than it wanted a worker's event loop ran, looked at twice a second. What makes "
            "one request wait makes all of its worker's wait. Logarithmic.",
            "s",
            quantiles("weir_loop_lag_seconds"),
            logarithmic=True,
            colours=worse_above(0.02, 0.1),
        ),
        Panel(
            "Memory",
            "What each worker has in memory, pages included that it shares with others.",
            "bytes",
            (Query(gauge("sum", "weir_worker_memory_bytes", _EACH), "{{instance}} {{worker}}"),),
        ),
        Panel(
            "Processor",
            "How much of one core each worker takes. A worker near 100 % wants another beside it.",
            "percentunit",
            (Query(rate("weir_worker_cpu_seconds_total", by=_EACH), "{{instance}} {{worker}}"),),
            colours=worse_above(0.7, 0.9),
        ),
    ),
)
_COUNTING = Row(
    "Counting, and upstream",
    (
        Panel(
            "Characters counted",
            "How the tokens of prompts came: from memory, by counting, or as an upper bound for want of "
            "time.",
            "suffix: chars/s",
            (Query(rate(_CHARACTERS, by="how"), "{{how}}"),),
            stacked=True,
        ),
        Panel(
            "Requests counted",
            "Requests by the worst of their prompt: all from memory, some counted, or some bounded.",
            "reqps",
            (Query(rate("weir_counted_requests_total", by="how"), "{{how}}"),),
            stacked=True,
        ),
        Panel(
            "Hit rate of memory",
            "The share of the characters of prompts whose tokens were in memory, and of those that were "
            "bounded.",
            "percentunit",
            (
                Query(share(rate(_CHARACTERS, 'how="cached"'), rate(_CHARACTERS)), "cached"),
                Query(share(rate(_CHARACTERS, 'how="bounded"'), rate(_CHARACTERS)), "bounded"),
            ),
        ),
        Panel(
            "Upstream errors",
            "Failures of upstream: no connection, an answer cut off, too slow, or a status of 5xx.",
            "cps",
            (Query(or_zero(rate("weir_upstream_errors_total", by="kind"), "kind"), "{{kind}}"),),
            colours=worse_above(0.1, 1),
        ),
    ),
    across=4,
)

GATEWAY = Dashboard(
    "weir-gateway",
    "Weir: Gateway",
    "What Weir itself costs, how the ledger does, and how the workers are.",
    (_GLANCE, _COST, _WORKERS, LEDGER, LOST, _COUNTING),
    (INSTANCE,),
)
