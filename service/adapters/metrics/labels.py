"""Labels: the closed sets of what a metric's labels may say; what is in none of them is `other`."""

from collections.abc import Collection

OTHER = "other"
ROUTES = ("chat", "models", OTHER)
KINDS = ("estimated", "reserved", "prompt", "completion", "cached", "reasoning", "overrun", "returned")
SOURCES = ("provider", "local", "reservation", "none")
REASONS = ("limit", "never", "ledger", "blocked")
CALLS = ("reserve", "settle", "renew", "release", "peek")
RESULTS = ("ok", "error", "late")
MODES = ("refuse", "allow", "local")
UPSTREAM_ERRORS = ("refused", "broken", "timeout", "status")
HOWS = ("cached", "counted", "bounded")


def one_of(value: str, known: Collection[str]) -> str:
    """The value, or `other` where it is not known."""
    return value if value in known else OTHER


def status_label(status: int | None) -> str:
    """The label of an answer's status; `none` where there was no answer."""
    return "none" if status is None else str(status) if 100 <= status <= 599 else OTHER
