"""Families: the table of what Weir publishes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Upper bounds in seconds: of work of ours, of one call to the ledger, and of waiting for a model.
_OWN = {"buckets": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)}
_STORE = {"buckets": (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)}
_MODEL = {"buckets": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)}
# Of errors of estimates, which are at most 1 and may be far below 0. Between the two bounds in the middle
# lies no error but 0, as nobody is believed who used a billion tokens.
_NEAR = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_ERROR = {"buckets": (-100.0, -10.0, *(-bound for bound in reversed(_NEAR)), -1e-9, 0.0, *_NEAR)}
# What the gauges of several workers are together; those of workers that are gone do not count.
_SUM, _LEAST, _MOST, _LAST = (
    {"multiprocess_mode": mode} for mode in ("livesum", "livemin", "livemax", "livemostrecent")
)

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, in Prometheus' spelling.
_GEN_AI = ("gen_ai_request_model", "gen_ai_provider_name", "gen_ai_operation_name")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, what it says, its labels; a histogram's buckets, or how workers' gauges add up."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def is_signed(self) -> bool:
        """Whether this is a histogram of values that may be negative."""
        return any(bound < 0 for bound in self.options.get("buckets", ()))


COUNTERS = (
    Family("weir_requests_total", "Exchanges that ended.", ("route", "outcome", "status")),
    Family("weir_tokens_total", "Tokens, by what they are to us.", ("model", "kind")),
    Family("weir_counted_characters_total", "Characters of prompts, by how their tokens came.", ("how",)),
    Family("weir_counted_requests_total", "Requests whose prompt was counted, by the worst of it.", ("how",)),
    Family("gen_ai_client_inference_usage_input_tokens_total", "Tokens of prompts, used.", _GEN_AI),
    Family("gen_ai_client_inference_usage_output_tokens_total", "Tokens of completions, used.", _GEN_AI),
    Family("weir_usage_total", "Exchanges by who said what was used.", ("source",)),
    Family("weir_refusals_total", "Refusals, shadow ones included.", ("policy", "reason", "enforced")),
    Family("weir_ledger_calls_total", "Calls to the ledger.", ("call", "result")),
    Family("weir_reservations_lost_total", "Reservations, by subject, that nobody settled in time."),
    Family("weir_degraded_total", "Requests decided without the ledger, and how.", ("policy", "mode")),
    Family("weir_settles_dropped_total", "Settlements lost, as too many waited for the ledger."),
    Family("weir_settles_forgotten_total", "Settlements that came too late to be counted safely."),
    Family("weir_upstream_errors_total", "Failures of upstream.", ("kind",)),
    Family("weir_log_records_dropped_total", "Log records lost because nobody read the log."),
    Family("weir_exchanges_dropped_total", "Exchanges that are missing in what `weir tail` shows."),
    Family("weir_worker_cpu_seconds_total", "Processor time of a worker and those before it.", ("worker",)),
)
HISTOGRAMS = (
    Family("weir_overhead_seconds", "Weir's own part of an exchange.", ("route",), _OWN),
    Family("weir_upstream_seconds", "From sending upstream to its head.", ("route",), _MODEL),
    Family("weir_first_byte_seconds", "From received to the first byte out.", ("route",), _MODEL),
    Family("weir_request_seconds", "From received to the end of the exchange.", ("route",), _MODEL),
    Family("weir_estimate_error_ratio", "(used - estimate) / used.", ("model", "part"), _ERROR),
    Family("weir_ledger_seconds", "How long a call to the ledger took.", ("call",), _STORE),
    Family("weir_loop_lag_seconds", "How much later than it wanted a worker's event loop ran.", (), _OWN),
)
GAUGES = (
    Family("weir_in_flight", "Exchanges that are open now.", ("route",), _SUM),
    Family("weir_ledger_available", "1 while every worker reaches the ledger, else 0.", (), _LEAST),
    Family("weir_ledger_breaker", "Whether the ledger is asked: 0 yes, 1 now and then, 2 no.", (), _MOST),
    Family("weir_workers_alive", "Workers that share the ledger, as far as they know.", (), _MOST),
    Family("weir_tokens_held", "Tokens that are reserved and not settled yet.", (), _SUM),
    Family("weir_clock_skew_seconds", "How far the clocks of a worker and the ledger are apart.", (), _MOST),
    Family(
        "weir_worker_memory_bytes", "What a worker has in memory, shared pages included.", ("worker",), _LAST
    ),
    Family("weir_reservations_open", "Reservations that this gateway holds open.", (), _SUM),
    Family("weir_settles_pending", "Settlements that wait for the ledger to come back.", (), _SUM),
    Family("weir_build_info", "The version that runs; always 1.", ("version",), _MOST),
    Family("weir_definition_info", "The API definition in force; always 1.", ("revision",), _MOST),
    Family("weir_definition_loaded_timestamp_seconds", "When that was read; Unix time.", (), _LEAST),
)
