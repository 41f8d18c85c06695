"""Ledger: what a call costs the store: time of its processor, commands, memory."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import machine
from benchmarks.engine import BATCH, CALLS, FOUR, MINUTE, Engine, programs, subject
from service.adapters.ledger.embedded import EmbeddedStore, EmbeddedStoreError
from service.domain.policy import Policy

ONE = "return 1"  # the script that all others are compared with
OFTEN = 4  # times as many of it: it is short, and all ratios rest on it
SETS = {"4 policies": FOUR, "1 policy": (MINUTE,)}
COMPACT = 512  # hash-max-listpack-value, with which a hash stays compact while reservations are open
OPEN = 4  # reservations in a subject whose memory is measured
BAR = 12.0  # times ONE that a reserve with four policies may cost
SAME = 1.02  # two medians of one run that differ by less say nothing


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a subject: idle, with one reservation open, and for each further one."""

    idle: int
    one: int
    further: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What an engine's calls cost, by set of policies and call.

    `times`: microseconds of the server's processor in each round, `one` those of the script ONE; `commands`
    those that a call carries out inside; `memory` with the server's defaults, and with COMPACT.
    """

    engine: str
    one: list[float]
    times: dict[tuple[str, str], list[float]]
    commands: dict[tuple[str, str], str]
    memory: dict[tuple[str, bool], Memory]

    def ratio(self, of: str, call: str) -> float:
        """How many times ONE a call costs: the median of the rounds' ratios."""
        return median(time / one for time, one in zip(self.times[of, call], self.one, strict=True))

    def settle_to_reserve(self) -> float:
        """What a settle with four policies costs, relative to the reserve of its round."""
        pairs = zip(self.times["4 policies", "settle"], self.times["4 policies", "reserve"], strict=True)
        return median(settle / reserve for settle, reserve in pairs)


def measured(engine: Engine, *, rounds: int, users: int) -> Costs:
    """Rounds over so many users, each of whom has been there before."""
    sha = str(engine.client.script_load(ONE))
    one: list[float] = []
    times: dict[tuple[str, str], list[float]] = {(of, call): [] for of in SETS for call in CALLS}
    for number in range(rounds + 1):
        ones = [_timed(engine, [[sha, 1, subject(i)] for i in range(OFTEN * users)])]
        for (of, call), seen in times.items():
            first = users * list(SETS).index(of)
            calls = [
                engine.call(call, SETS[of], subject(i), f"{number:016}") for i in range(first, first + users)
            ]
            seen.append(_timed(engine, calls))
        one += ones
    warm = {key: seen[1:] for key, seen in times.items()}
    commands = {key: _commands(engine, *key) for key in times}
    memory = {(of, compact): _memory(engine, SETS[of], compact) for of in SETS for compact in (False, True)}
    return Costs(engine.name, one[1:], warm, commands, memory)


def _timed(engine: Engine, calls: Sequence[Sequence[object]]) -> float:
    """Microseconds of the server's processor for each call."""
    before = engine.cpu()
    engine.run(calls)
    return (engine.cpu() - before) / len(calls) * 1e6


def _commands(engine: Engine, of: str, call: str) -> str:
    """The commands that one call carries out on a subject that was used before, one of its own being open."""
    key, rid = subject(0), "commands"
    engine.client.delete(key)
    for name in ("reserve", "settle", *CALLS[: CALLS.index(call)]):
        engine.run([engine.call(name, SETS[of], key, rid)])
    before = engine.commands()
    engine.run([engine.call(call, SETS[of], key, rid)])
    after = engine.commands()
    made = [name for name, count in after.items() for _ in range(count - before.get(name, 0))]
    return " ".join(sorted(name.upper() for name in made if name not in ("evalsha", "info")))


def _memory(engine: Engine, policies: Sequence[Policy], compact: bool) -> Memory:
    """Of a subject that has had a reservation before: what was spread out once stays so."""
    key, name = subject(0), "hash-max-ziplist-value"  # as all of them still call it
    default = str(engine.client.config_get(name)[name])
    engine.client.config_set(name, str(COMPACT) if compact else default)
    engine.client.delete(key)
    rids = [f"{number:016}" for number in range(OPEN)]
    seen = []
    for rid in ["before", *rids]:
        if rid != "before":
            seen.append(engine.memory(key))
        engine.run([engine.call("reserve", policies, key, rid)])
        if rid == "before":
            engine.run([engine.call("settle", policies, key, rid)])
    full = engine.memory(key)
    engine.client.config_set(name, default)
    return Memory(seen[0], seen[1], (full - seen[1]) / (OPEN - 1))


def table(costs: Costs) -> str:
    """One engine's costs."""
    head = "{:<12}{:<10}{:>8}{:>15}   {}"
    lines = [costs.engine, head.format("", "", "us", f'x "{ONE}"', "commands")]
    lines.append(head.format("", ONE, f"{median(costs.one):.2f}", "1.0", ""))
    for (of, call), seen in costs.times.items():
        made = costs.commands[of, call]
        count = f"{len(made.split())}: {made}"
        lines.append(head.format(of, call, f"{median(seen):.2f}", f"{costs.ratio(of, call):.1f}", count))
    each = ", ".join(
        f"{time / one:.1f}" for time, one in zip(costs.times["4 policies", "reserve"], costs.one, strict=True)
    )
    lines.append(f"reserve with 4 policies in each round: {each}")
    lines += [f"settle / reserve with 4 policies: {costs.settle_to_reserve():.2f}", ""]
    shape = "{:<12}{:<22}{:>8}{:>10}{:>14}"
    lines.append(shape.format("bytes", "", "idle", "one open", "each further"))
    for (of, compact), memory in costs.memory.items():
        setting = f"listpack-value {COMPACT}" if compact else "defaults"
        lines.append(shape.format(of, setting, memory.idle, memory.one, f"{memory.further:.0f}"))
    return "\n".join(line.rstrip() for line in lines)


def faults(costs: Costs) -> list[str]:
    """What is above its bar: reserve at most BAR times ONE, settle at most the SAME as reserve."""
    reserve, settle = costs.ratio("4 policies", "reserve"), costs.settle_to_reserve()
    said = [f"reserve costs {reserve:.1f} times {ONE!r}, {BAR:g} at most"] if reserve > BAR else []
    if settle > SAME:
        said.append(f"settle costs {settle:.2f} times a reserve, 1 at most")
    return [f"{costs.engine}: {one}" for one in said]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each engine, print a table of it, and return the exit code: 1 where a bar is not met."""
    options = _parser().parse_args(arguments)
    print(f"{machine.described()}; {options.rounds} rounds, {BATCH} commands a write, medians\n", flush=True)
    wrong: list[str] = []
    cores = machine.cores()
    machine.pin(0, cores.others)
    try:
        for program in programs():
            with EmbeddedStore(program) as store:
                machine.pin(store.pid, cores.measured)
                costs = measured(Engine(store), rounds=options.rounds, users=options.users)
            print(table(costs), end="\n\n", flush=True)
            wrong += faults(costs)
    except EmbeddedStoreError as error:
        wrong.append(str(error))
    for fault in wrong:
        print(f"failed: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of all calls in turn, after one of warm-up")
    parser.add_argument("--users", type=int, default=2000, help="each of whom makes every call once a round")
    return parser


if __name__ == "__main__":
    sys.exit(main())
