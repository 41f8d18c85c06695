"""Arguments: how `weir tail` is asked."""

import argparse
import re

_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")
_LONGEST = 256  # characters of a glob
_FURTHEST = 7 * _UNITS["d"]  # ms
_ASKED = (
    "REDIS_URL must be what the gateways have, and for --user WEIR_DIGEST_KEY as well. NO_COLOR turns "
    "colours off. Times are UTC; tokens are prompt + completion; without a user the credential is shown."
)


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weir tail`."""
    parser.epilog = _ASKED
    parser.add_argument("--user", metavar="U", help="of this user alone, by name or by digest")
    parser.add_argument(
        "--status", type=_status, metavar="CODE", help="with this status alone, such as 429 or 5xx"
    )
    parser.add_argument("--model", type=_glob, metavar="GLOB", help="of these models alone")
    parser.add_argument("--json", action="store_true", help="for programs: the records as they are")
    parser.add_argument(
        "--since", type=_span, default=0, metavar="TIME", help="begin so long ago, such as 30s, 5m, 12h or 7d"
    )
    parser.add_argument("--count", type=_count, metavar="N", help="end after so many")


def _status(text: str) -> str:
    if not _STATUS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a status such as 429 or 5xx, not {text!r}")
    return text


def _glob(text: str) -> str:
    if not 0 < len(text) <= _LONGEST:
        raise argparse.ArgumentTypeError(f"expected a glob of 1 to {_LONGEST} characters")
    return text


def _span(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    span = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < span <= _FURTHEST:
        raise argparse.ArgumentTypeError(f"expected a time such as 30s, 5m or 12h, up to 7d, not {text!r}")
    return span


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 999999999, not {text!r}")
    return int(text)
