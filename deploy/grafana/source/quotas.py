"""Quotas: who is refused by what, what was reserved and what was used, and how good the estimates are."""

from deploy.grafana.source.panels import INSTANCE, MODEL, POLICY, Dashboard, Panel, Row, worse_above
from deploy.grafana.source.promql import MODEL as OF_MODEL
from deploy.grafana.source.promql import POLICY as OF_POLICY
from deploy.grafana.source.promql import (
    USED,
    Query,
    gauge,
    increase,
    or_zero,
    quantiles,
    rate,
    series,
    share,
    total,
)

_REFUSALS = "weir_refusals_total"
_TOKENS = "weir_tokens_total"
_ERROR = "weir_estimate_error_ratio"
_ENFORCED, _SHADOW = 'enforced="true"', 'enforced="false"'
_RESERVED = rate(_TOKENS, 'kind="reserved"', OF_MODEL)

_GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Refused",
            "Refusals of policies that are enforced, a second.",
            "cps",
            (Query(or_zero(rate(_REFUSALS, _ENFORCED, OF_POLICY))),),
        ),
        Panel(
            "Would be refused",
            "Refusals of policies in shadow mode, a second: what enforcing them would refuse.",
            "cps",
            (Query(or_zero(rate(_REFUSALS, _SHADOW, OF_POLICY))),),
        ),
        Panel(
            "Held now",
            "Tokens that are reserved and not settled yet: 0 when nothing is under way.",
            "short",
            (Query(gauge("sum", "weir_tokens_held")),),
        ),
        Panel(
            "Returned",
            "The share of the reserved tokens that was given back unused. Much of it means that requests "
            "allow far longer completions than they get.",
            "percentunit",
            (Query(share(rate(_TOKENS, 'kind="returned"', OF_MODEL), _RESERVED)),),
        ),
        Panel(
            "Overrun",
            "Tokens used beyond what was reserved, as a share of the reserved: by this much a limit may be "
            "passed for a moment.",
            "percentunit",
            (Query(share(rate(_TOKENS, 'kind="overrun"', OF_MODEL), _RESERVED)),),
            colours=worse_above(0.02, 0.1),
        ),
        Panel(
            "Without the ledger",
            "Decisions of policies without the ledger, a second: while there are any, limits hold as `on- "
            "ledger-failure` says, and no better.",
            "cps",
            (Query(or_zero(rate("weir_degraded_total", OF_POLICY))),),
            colours=worse_above(0.001, 1),
            leads="weir-gateway",
        ),
    ),
    kind="stat",
    across=6,
)
_REFUSED = Row(
    "Refusals",
    (
        Panel(
            "Refusals by policy",
            "Of policies that are enforced: `limit` where waiting helps, `never` where a request cannot "
            "fit, `blocked` by an operator, `ledger` where it was away.",
            "cps",
            (
                Query(
                    or_zero(rate(_REFUSALS, _ENFORCED, OF_POLICY, by="policy, reason"), "policy"),
                    "{{policy}} {{reason}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Refusals in shadow mode",
            "What policies that are not enforced would have refused.",
            "cps",
            (
                Query(
                    or_zero(rate(_REFUSALS, _SHADOW, OF_POLICY, by="policy, reason"), "policy"),
                    "{{policy}} {{reason}}",
                ),
            ),
            stacked=True,
        ),
    ),
    across=2,
)
_SUBJECTS = Row(
    "Subjects",
    (
        Panel(
            "Tokens this hour",
            "Who used most since the hour began, the first twenty: digests of users, as logs have them, or "
            "the credential of who named none.",
            "short",
            (Query(total("max", series("weir_top_subject_tokens"), by="subject")),),
        ),
    ),
    kind="table",
    across=1,
)
_SPENT = Row(
    "Reserved and used",
    (
        Panel(
            "Reserved and used",
            "Tokens reserved before, and prompt and completion tokens used after, where a policy counts "
            "them or none does.",
            "suffix: tokens/s",
            (
                Query(or_zero(_RESERVED), "reserved"),
                Query(or_zero(rate(_TOKENS, USED, OF_MODEL)), "used"),
            ),
        ),
        Panel(
            "Overrun and returned",
            "What was used beyond the reservation, and what of it was given back.",
            "suffix: tokens/s",
            (
                Query(or_zero(rate(_TOKENS, 'kind="overrun"', OF_MODEL)), "overrun"),
                Query(or_zero(rate(_TOKENS, 'kind="returned"', OF_MODEL)), "returned"),
            ),
        ),
        Panel(
            "Who said what was used",
            "Exchanges by the source of their usage: the provider, the local count, or, for want of both, "
            "the reservation itself; `none` where nothing was produced.",
            "cps",
            (Query(rate("weir_usage_total", by="source"), "{{source}}"),),
            stacked=True,
        ),
        Panel(
            "Held",
            "Tokens that are reserved and not settled yet, by gateway.",
            "short",
            (Query(gauge("sum", "weir_tokens_held", "instance"), "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Reservations open",
            "Reservations that each gateway holds open: in step with the chats in flight.",
            "short",
            (Query(gauge("sum", "weir_reservations_open", "instance"), "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Usage lost",
            "Leases that ended with nobody having settled, once for each subject: their workers died, and "
            "they stay charged as reserved, where `on-lost` does not say otherwise. And settlements that "
            "found no room to wait for the ledger, or came too late: usage that no account will know.",
            "short",
            (
                Query(or_zero(increase("weir_reservations_lost_total")), "leases"),
                Query(or_zero(increase("weir_settles_dropped_total")), "settlements dropped"),
                Query(or_zero(increase("weir_settles_forgotten_total")), "settlements forgotten"),
            ),
            colours=worse_above(1, 100),
        ),
    ),
)
_ESTIMATES = Row(
    "Estimates",
    (
        Panel(
            "Estimate error, prompts",
            "(used − estimate) / used: above 0 a prompt had more tokens than were estimated, below 0 fewer.",
            "percentunit",
            quantiles(_ERROR, 'part="prompt"', OF_MODEL, of=(5, 50, 95)),
        ),
        Panel(
            "Estimate error, completions",
            "The same of completions, whose estimate is what experience expects, or else all that the "
            "request allows: −900 % is ten times too much.",
            "percentunit",
            quantiles(_ERROR, 'part="completion"', OF_MODEL, of=(5, 50, 95)),
        ),
    ),
    across=2,
)

QUOTAS = Dashboard(
    "weir-quotas",
    "Weir: Quotas",
    "Who is refused by what, what was reserved and what was used, and how good the estimates are.",
    (_GLANCE, _REFUSED, _SPENT, _SUBJECTS, _ESTIMATES),
    (INSTANCE, MODEL, POLICY),
)
