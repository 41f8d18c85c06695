"""Arguments: how `weir quota` is asked."""

import argparse
import re
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

LONGEST = 3650  # days that an operator's rule lasts at most
MOST = 1000  # subjects that `top` shows at most

_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SUBJECT = (
    "SUBJECT is the values of its dimensions, each a word of its own: credential=key-Ab12 user=al (a value "
    "may hold commas and =; quote what the shell would not leave alone); or everyone, for policies per "
    "nobody; or the digest that top shows, in its braces. REDIS_URL, WEIR_DIGEST_KEY, WEIR_DEFINITION, "
    "WEIR_KEYS_FILE and WEIR_VAR_* must be what the gateways have."
)


def add(parser: argparse.ArgumentParser) -> None:
    """The commands of `weir quota`."""
    parser.epilog = _SUBJECT
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    show = _verb(verbs, "show", "how a subject stands with each policy", "SUBJECT")
    _json(show)

    words = "SUBJECT POLICY LIMIT|default"
    rule = _verb(verbs, "set", "another limit for a subject; default: its own again", words)
    _lasting(rule, default="30d")

    _verb(verbs, "reset", "what is charged becomes zero, with these policies or all", "SUBJECT [POLICY ...]")

    block = _verb(verbs, "block", "let nothing of a subject pass", "SUBJECT")
    _lasting(block, default=f"{LONGEST}d")
    _verb(verbs, "unblock", "let it pass again", "SUBJECT")

    top = _command(verbs, "top", "the subjects that have used the greatest share of a limit")
    top.add_argument("--limit", dest="most", type=_most, default=10, metavar="N", help="10 by default")
    top.add_argument("--policy", metavar="NAME", help="the share of this one's limit; else of any")
    _json(top)


def _verb(verbs: Verbs, name: str, help: str, words: str) -> argparse.ArgumentParser:
    """A command about one subject."""
    command = _command(verbs, name, help)
    command.usage = f"weir quota {name} [options] {words}"
    command.epilog = _SUBJECT
    command.add_argument("words", nargs="+", metavar="SUBJECT", help=argparse.SUPPRESS)
    command.add_argument(
        "--plan", metavar="NAME", help="whose policies; else of the credential's plan, or none"
    )
    return command


def _command(verbs: Verbs, name: str, help: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help)
    command.add_argument(
        "--definition", type=str, metavar="FILE", help="the API definition [WEIR_DEFINITION]"
    )
    return command


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="for programs")


def _lasting(command: argparse.ArgumentParser, *, default: str) -> None:
    help = f"such as 30m, 12h or 7d, up to {LONGEST}d; {default} by default"
    command.add_argument("--for", dest="lasts", type=_span, default=default, metavar="TIME", help=help)


def _span(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    span = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < span <= LONGEST * _UNITS["d"]:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 30m, 12h or 7d, up to {LONGEST}d, not {text!r}"
        )
    return span


def _most(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST}, not {text!r}")
    return int(text)
