"""The simulation's command line: days of traffic, then a busy user; exit code 1 where something broke."""

import argparse
import sys
import time
from collections.abc import Sequence

import redis

from benchmarks.simulation.busy import LENGTHS, LIMIT, SPREADS, Busy
from benchmarks.simulation.days import Days, simulated
from benchmarks.simulation.ledger import Ledger
from service.adapters.ledger.embedded import EmbeddedStore, EmbeddedStoreError
from service.domain.account import Algorithm
from service.domain.policy import Reserve

WARM_UP = 15  # virtual minutes before a busy user is measured: three times what the longest request takes
WINDOWS = (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW)
TABLE = [
    *((Algorithm.LEAKY_BUCKET, reserve, spread) for spread in SPREADS for reserve in Reserve),
    *((algorithm, reserve, "sd 25") for algorithm in WINDOWS for reserve in Reserve),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with EmbeddedStore() as store:
            client = redis.Redis.from_url(store.url)
            faults = _days(client, options) + _busy(client, options)
    except EmbeddedStoreError as error:
        faults = [str(error)]
    for fault in faults[:20]:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _days(client: redis.Redis, options: argparse.Namespace) -> list[str]:
    began = time.monotonic()
    days = simulated(Ledger(client), seed=options.seed, exchanges=options.exchanges, users=1000, workers=10)
    print(report(days, options.exchanges, time.monotonic() - began), end="\n\n", flush=True)
    return days.faults


def report(days: Days, exchanges: int, seconds: float) -> str:
    """What happened in the days."""
    calls = ", ".join(f"{count:,} {said}" for said, count in sorted(days.said.items()))
    return "\n".join(
        [
            f"{exchanges:,} exchanges of {days.users} users over four days, in {seconds:.0f} s",
            f"calls: {calls}",
            f"{days.tokens:,} tokens used, {days.windows:,} windows of {days.accounts:,} accounts",
            f"{days.compared:,} accounts compared with their histories, {days.above:,} stood above",
            f"faults: {len(days.faults)}",
        ]
    )


def _busy(client: redis.Redis, options: argparse.Namespace) -> list[str]:
    """Print what a busy user gets of a limit, by algorithm, reservation, spread, and length of a request."""
    shape = "{:<16}{:<13}{:<13}" + "{:>7}" * len(LENGTHS) + "{:>10}{:>10}"
    print(f"% of {LIMIT:,} tokens a minute that an always busy user gets, by seconds that a request takes,")
    print("and the most tokens that a minute really saw, with any of these")
    print(shape.format("algorithm", "reserve", "completions", *LENGTHS, "admitted", "produced"))
    faults: list[str] = []
    for algorithm, reserve, spread in TABLE:
        row = []
        for seconds in LENGTHS:
            client.flushall()
            busy = Busy(
                Ledger(client),
                seconds=seconds,
                spread=SPREADS[spread],
                algorithm=algorithm,
                reserve=reserve,
                seed=options.seed,
            )
            row.append(busy.run(after=WARM_UP, minutes=options.minutes))
            faults += row[-1].faults
        got = [f"{seen.fraction * 100:.1f}" for seen in row]
        most = max(seen.admitted for seen in row), max(seen.produced for seen in row)
        print(shape.format(algorithm, reserve, spread, *got, *(f"{tokens:,}" for tokens in most)), flush=True)
    return faults


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--exchanges", type=int, default=5_000, help="over four days")
    parser.add_argument("--minutes", type=int, default=60, help="for which a busy user is measured")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
