"""Overview: what comes in, what is refused, what waiting costs, and whether anything is wrong."""

from deploy.grafana.source.panels import (
    INSTANCE,
    MODEL,
    Dashboard,
    Panel,
    Row,
    worse_above,
    worse_below,
)
from deploy.grafana.source.promql import (
    CHAT,
    USED,
    Query,
    gauge,
    or_zero,
    quantiles,
    rate,
    share,
    total,
)
from deploy.grafana.source.promql import MODEL as OF_MODEL

_REQUESTS = "weir_requests_total"
_TOKENS = "weir_tokens_total"
_FIRING = 'ALERTS{alertstate="firing"}'

_GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Requests",
            "Exchanges that ended, a second, whatever their outcome.",
            "reqps",
            (Query(rate(_REQUESTS)),),
        ),
        Panel(
            "Tokens used",
            "Prompt and completion tokens that were really used, a second.",
            "suffix: tokens/s",
            (Query(rate(_TOKENS, USED, OF_MODEL)),),
        ),
        Panel(
            "Rejected",
            "The share of exchanges that Weir itself refused: by a policy, for a key, for a shape, or as "
            "the ledger was away. A policy that refuses does its work; it is no error.",
            "percentunit",
            (Query(share(rate(_REQUESTS, 'outcome="rejected"'), rate(_REQUESTS))),),
            leads="weir-quotas",
        ),
        Panel(
            "Failed",
            "The share of exchanges that a client saw end with a status of 5xx, of whomever.",
            "percentunit",
            (Query(share(rate(_REQUESTS, 'status=~"5.."'), rate(_REQUESTS))),),
            colours=worse_above(0.01, 0.05),
        ),
        Panel(
            "In flight",
            "Exchanges that are open now, over all gateways.",
            "short",
            (Query(gauge("sum", "weir_in_flight")),),
        ),
        Panel(
            "Ledger",
            "Whether every worker of every gateway reaches the ledger: whether limits are enforced as they "
            "stand.",
            "none",
            (Query(gauge("min", "weir_ledger_available")),),
            colours=worse_below(1),
            words={"0": "away", "1": "reached"},
            leads="weir-gateway",
        ),
        Panel(
            "Alerts",
            "Alerts that fire now.",
            "short",
            (Query(or_zero(total("count", _FIRING))),),
            colours=worse_above(1, 3),
        ),
        Panel(
            "Revision",
            "The definition in force, and how many gateways run it: more than one revision is a deployment "
            "under way.",
            "short",
            (Query(gauge("count", "weir_definition_info", "revision"), "{{revision}}"),),
            named=True,
        ),
    ),
    kind="stat",
    across=8,
)
_EXCHANGES = Row(
    "Requests",
    (
        Panel(
            "Requests by outcome",
            "How exchanges ended. `rejected` is Weir's own refusal; the `upstream_…` ones are not ours.",
            "reqps",
            (Query(rate(_REQUESTS, by="outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Requests by status",
            "The status that clients saw; `none` where a client left before there was one.",
            "reqps",
            (Query(rate(_REQUESTS, by="status"), "{{status}}"),),
            stacked=True,
        ),
    ),
    across=2,
)
_USED = Row(
    "Tokens",
    (
        Panel(
            "Tokens by kind",
            "Prompt and completion were used; `cached` and `reasoning` are parts of those. `estimated` is "
            "what was expected before, of refused requests too; `reserved`, `returned` and `overrun` are on "
            "the dashboard Quotas.",
            "suffix: tokens/s",
            (
                Query(
                    rate(
                        _TOKENS, 'kind=~"estimated|prompt|completion|cached|reasoning"', OF_MODEL, by="kind"
                    ),
                    "{{kind}}",
                ),
            ),
        ),
        Panel(
            "Tokens by model",
            "Prompt and completion tokens that were used. A model that is not configured is `other`.",
            "suffix: tokens/s",
            (Query(rate(_TOKENS, USED, OF_MODEL, by="model"), "{{model}}"),),
            stacked=True,
        ),
    ),
    across=2,
)
_WAITING = Row(
    "What waiting costs",
    (
        Panel(
            "First byte",
            "From a chat request received to the first byte of content sent to the client. Logarithmic.",
            "s",
            quantiles("weir_first_byte_seconds", CHAT),
            logarithmic=True,
        ),
        Panel(
            "Upstream",
            "From sending a chat request upstream to the head of its answer. Logarithmic.",
            "s",
            quantiles("weir_upstream_seconds", CHAT),
            logarithmic=True,
        ),
        Panel(
            "Whole exchange",
            "From a chat request received to the end of its answer. Logarithmic.",
            "s",
            quantiles("weir_request_seconds", CHAT),
            logarithmic=True,
        ),
    ),
)
_WRONG = Row(
    "What is refused, and what is wrong",
    (
        Panel(
            "Refusals",
            "Refusals of policies that are enforced: `limit` where waiting helps, `never` where a request "
            "cannot fit, `blocked` by an operator, `ledger` where it was away.",
            "cps",
            (
                Query(
                    or_zero(rate("weir_refusals_total", 'enforced="true"', by="reason"), "reason"),
                    "{{reason}}",
                ),
            ),
            stacked=True,
            leads="weir-quotas",
        ),
        Panel(
            "Degraded",
            "Decisions of policies without the ledger: refused, allowed, or counted by each worker's share.",
            "cps",
            (Query(or_zero(rate("weir_degraded_total", by="mode"), "mode"), "{{mode}}"),),
            colours=worse_above(0.001, 1),
            leads="weir-gateway",
        ),
        Panel(
            "Alerts firing",
            "Alerts that fire, by name, and how many of each. deploy/README.md says where to look first.",
            "short",
            (Query(or_zero(total("count", _FIRING, "alertname"), "alertname"), "{{alertname}}"),),
            colours=worse_above(1, 3),
        ),
    ),
)

OVERVIEW = Dashboard(
    "weir-overview",
    "Weir: Overview",
    "What comes in, what is refused, what waiting costs, and whether anything is wrong.",
    (_GLANCE, _EXCHANGES, _USED, _WAITING, _WRONG),
    (INSTANCE, MODEL),
)
