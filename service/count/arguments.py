"""Arguments: how `weir count` is asked."""

import argparse
import re

MOST = 1000  # cases that are shown at most
WORST = 10  # where nothing is said

_READ = (
    "Each line of what --against names is a JSON object: the body as `request`, or the body itself; the "
    "model in it or beside it; what the API reported as `usage.prompt_tokens` (or `prompt_tokens`, or "
    "`expected_prompt_tokens`), null where nobody knows; and, if there are some, `category` and `id`."
)


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of `weir count`."""
    parser.epilog = _READ
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="FILE", help="the body of a request; - is stdin")
    what.add_argument(
        "--against", metavar="FILE", help="bodies whose prompt tokens were reported, a line each; - is stdin"
    )
    parser.add_argument(
        "--model", type=_model, metavar="NAME", help="count as this one does, whatever is said"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--worst",
        type=_worst,
        metavar="N",
        help=f"with --against: show so many cases; {WORST} by default, 0 for none",
    )
    parser.add_argument("--definition", metavar="FILE", help="the API definition [WEIR_DEFINITION]")


def _model(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a model's name")
    return text


def _worst(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MOST}, not {text!r}")
    return int(text)
