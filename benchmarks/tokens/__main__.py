"""The command line: what counting costs, then what hostile bodies do; exit code 1 where a bar is not met."""

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.servers import ServerError
from benchmarks.targets import WEIR, targets
from benchmarks.tokens import costs, stalls
from benchmarks.tokens.hostile import Hostile
from benchmarks.tokens.prose import Prose
from service.adapters import vocabularies
from service.adapters.ledger.embedded import EmbeddedStoreError
from service.domain.tokens.encodings import build

_REQUESTS = 2  # with each body alone, and as many with somebody beside


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    prose = Prose(options.seed)
    wrong = _costs(prose, options.amount)
    try:
        _stalls(Hostile(options.seed, prose))
    except (ServerError, EmbeddedStoreError) as error:
        wrong.append(str(error))
    for fault in wrong:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def _costs(prose: Prose, amount: float) -> list[str]:
    machine.pin(0, machine.cores().measured)
    encode = build(costs.ENCODING, vocabularies.read(costs.ENCODING))
    gc.freeze()  # as the gateway does
    found = list(costs.Costs(encode, prose, amount=amount).all())
    print(f"counting: medians of rounds, CPU time a request\n\n{costs.table(found)}\n", flush=True)
    return costs.faults(found)


def _stalls(hostile: Hostile) -> None:
    cores = machine.cores()
    machine.pin(0, cores.others)
    print(f"hostile bodies: aims {stalls.CPU:g} ms of CPU, {stalls.STALL:g} ms of stall; * is above\n")
    print(stalls.heading(), flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="weir-bench-") as folder,
        targets([WEIR], folder=Path(folder), cores=cores) as (weir,),
    ):
        for name, make in hostile.bodies():
            print(stalls.line(stalls.measured(weir.server, name, make, requests=_REQUESTS)), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description="What counting costs.")
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    parser.add_argument("--amount", type=float, default=1.0, help="of rounds, relative to the default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
