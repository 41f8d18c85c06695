"""Days: the traffic of some days from its beginning to its last number."""

from collections import Counter
from dataclasses import dataclass

from benchmarks.simulation.audit import Audit
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.ledger import Ledger
from benchmarks.simulation.traffic import BEGIN, Traffic


@dataclass(frozen=True, slots=True)
class Days:
    """What happened: `said` counts the ledger's answers, `compared` accounts held against their histories.

    Of these so many stood `above`, as a bucket may whose lows were merged; `faults` should be empty.
    """

    faults: list[str]
    said: Counter[str]
    compared: int
    above: int
    users: int
    tokens: int
    accounts: int
    windows: int


def simulated(ledger: Ledger, *, seed: int, exchanges: int, users: int, workers: int) -> Days:
    """Run all of it, and check it to the end."""
    clock = Clock(BEGIN)
    audit = Audit(ledger, clock)
    traffic = Traffic(audit, clock, seed=seed, exchanges=exchanges, users=users, workers=workers)
    traffic.begin()
    clock.run()
    clock.begin(audit.close(list(traffic.members.values())), clock.now)
    clock.run()
    return Days(
        faults=audit.faults,
        said=audit.said,
        compared=audit.compared,
        above=audit.above,
        users=len(traffic.members),
        tokens=traffic.tokens,
        accounts=len(audit.histories),
        windows=sum(history.windows() for history in audit.histories.values()),
    )
