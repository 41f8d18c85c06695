"""Line: an exchange as people read it, each in its own line, columns below each other."""

from collections.abc import Mapping
from typing import Any

from service.columns import cell

_COLOURS = {"2": 32, "3": 36, "4": 33}  # of a status by its first digit: green, cyan, yellow; all else red
_RED = 31
_USER, _MODEL, _POLICY, _ID = 14, 24, 18, 40  # characters that are shown of each


def line(record: Mapping[str, Any], *, coloured: bool) -> str:
    """Time, who, model, status, tokens, what ended it if not its end, milliseconds, id."""
    words = (
        cell(str(record.get("timestamp") or "-")[11:23], 12).ljust(12),
        _column(record.get("user") or record.get("credential"), _USER),
        _column(record.get("model"), _MODEL),
        _status(record.get("status"), coloured=coloured),
        _tokens(record.get("used")).rjust(15),
        _column(_why(record), _POLICY),
        _milliseconds(record.get("ms")).rjust(10),
        cell(str(record.get("id") or "-"), _ID),
    )
    return "  ".join(words)


def _column(value: object, width: int) -> str:
    """A cell of a fixed width; the mark that something is missing is part of it."""
    shown = cell(str(value or "-"), width)
    return (shown if len(shown) <= width else cell(shown, width - 1)).ljust(width)


def _status(status: object, *, coloured: bool) -> str:
    shown = cell(str(status or "-"), 3).ljust(3)
    return f"\x1b[{_COLOURS.get(shown[0], _RED)}m{shown}\x1b[0m" if coloured else shown


def _tokens(used: object) -> str:
    if not isinstance(used, Mapping) or not (used.get("prompt") or used.get("completion")):
        return "-"
    return cell(f"{used.get('prompt')}+{used.get('completion')}", 21)


def _why(record: Mapping[str, Any]) -> object:
    """The policy that refused, or else how the exchange ended where that was not the good end."""
    outcome = record.get("outcome")
    return record.get("policy") or (None if outcome == "complete" else outcome)


def _milliseconds(ms: object) -> str:
    total = ms.get("total") if isinstance(ms, Mapping) else None
    return f"{total:.1f}ms" if isinstance(total, int | float) else "-"
