"""Calls: scripts, asked again where the clock was not known, and by subject where the store is split."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.adapters.ledger.breaker import UNASKED, Runs
from service.adapters.ledger.link import Argument, LedgerAway
from service.adapters.ledger.reservation import Layout
from service.adapters.ledger.scripts import Script, Scripts
from service.domain.account import NEVER
from service.domain.policy import Claim, Verdict, verdict_of

LATE_AFTER = 5_000  # ms of ledger time in which a call may still be carried out
UNDONE = ("late", "stale")  # nothing was looked at: the ledger's time was not known, and now it is

Observe = Callable[[str, str, float], None]


class Carries(Runs, Protocol):
    """What carries scripts to the store: one server, or the many of a cluster."""

    scripts: Scripts
    splits: bool  # whether a call may name the keys of one slot only

    async def warm(self) -> None:
        """Connect, so that no request waits for it. Raises LedgerAway."""

    async def is_there(self) -> bool:
        """Whether the store answers."""

    async def close(self) -> None:
        """Let what is under way end, then close the connections."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script said of the claims of one layout; `numbers` as its contract lists them, after `now`."""

    layout: Layout
    status: str
    now: int
    numbers: Sequence[int] = ()


class Torn(LedgerAway):
    """A call failed, of one or of several; `reached` are those that were carried out, or may have been."""

    def __init__(self, reason: str, reached: Sequence[Layout]) -> None:
        super().__init__(reason, unknown=bool(reached))
        self.reached = reached


class Calls:
    """Asks scripts over a wire, and knows the ledger's clock from their answers.

    `clock` in seconds; `observe(call, result, seconds)` hears of every call.
    """

    def __init__(self, wire: Runs, *, observe: Observe, clock: Callable[[], float]) -> None:
        self._wire = wire
        self._observe = observe
        self._clock = clock
        self._ahead = 0.0  # ledger time less our clock, ms
        self.heard = 0.0  # when the ledger last answered, s of our clock
        self.lost = 0  # leases that calls of ours found ended, with nobody having settled
        self.available = True  # whether the last call was answered

    def now(self) -> int:
        """The ledger's time in ms, as last seen; long past where it was never seen."""
        return round(self._clock() * 1000 + self._ahead)

    async def ask_all(
        self,
        name: str,
        script: Script,
        layouts: Sequence[Layout],
        amounts: Sequence[int],
        arguments: Callable[[Layout], Sequence[Argument]],
        *,
        deadline: float,
    ) -> list[Answer]:
        """The answers for each layout, asked side by side; `deadline` in seconds.

        Raises Torn when all have ended and one has failed.
        """
        began, status = self._clock(), "error"
        try:
            if len(layouts) == 1:
                answers = [await self._ask(script, layouts[0], amounts, arguments(layouts[0]), deadline)]
            else:
                asked = [self._ask(script, one, amounts, arguments(one), deadline) for one in layouts]
                answers = _whole(layouts, await asyncio.gather(*asked, return_exceptions=True))
            status = "ok"
            return answers
        except LedgerAway as away:
            status = "late" if away.reason in UNDONE else away.reason if away.reason == UNASKED else "error"
            if isinstance(away, Torn):
                raise
            raise Torn(away.reason, layouts if away.unknown else ()) from away
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            self._hear(name, status, self._clock() - began)

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        """Status and numbers of a script, less what every answer tells about the ledger itself."""
        status, (now, *numbers) = await self._wire.run(script, keys, arguments, deadline=deadline)
        self.heard = self._clock()
        self._ahead = now - self.heard * 1000
        if numbers:
            self.lost += numbers.pop(0)
        return status, [now, *numbers]

    async def look(self, script: Script, layout: Layout, *, deadline: float) -> list[int]:
        """What a script says that only looks, or does what an operator asks. Raises LedgerAway."""
        amounts = [0] * len(layout.claims)
        return (await self._told(script, layout, amounts, lambda now: [""], deadline))[1]

    async def _ask(
        self,
        script: Script,
        layout: Layout,
        amounts: Sequence[int],
        arguments: Sequence[Argument],
        deadline: float,
    ) -> Answer:
        def first(now: int) -> list[Argument]:
            return ["", now + LATE_AFTER, *arguments]

        status, (now, *numbers) = await self._told(script, layout, amounts, first, deadline)
        return Answer(layout, status, now, numbers)

    async def _told(
        self,
        script: Script,
        layout: Layout,
        amounts: Sequence[int],
        first: Callable[[int], list[Argument]],
        deadline: float,
    ) -> tuple[str, list[int]]:
        """What a script says, asked again where nothing was looked at; `first` goes before the policies."""
        until = self._clock() + deadline
        for _ in range(3):
            now = self.now()
            call = [*first(now), *layout.arguments(amounts, now)]
            status, numbers = await self.run(script, layout.keys, call, deadline=until - self._clock())
            if status not in UNDONE:
                return status, numbers
        raise LedgerAway(status, unknown=False)

    def _hear(self, name: str, status: str, seconds: float) -> None:
        """Tell how a call went; one that its caller gave up, or that was not made, says nothing of it."""
        if status in ("cancelled", UNASKED):
            return
        self.available = status != "error"
        self._observe(name, status, seconds)


def verdict(claims: tuple[Claim, ...], answers: Sequence[Answer]) -> Verdict:
    """What all answers say together. Raises LedgerAway where one had nothing to say."""
    blocked = any(answer.status == "blocked" for answer in answers)
    worst = [0, 0]
    numbers: list[int] = []
    rules: list[int] = []
    for answer in answers:
        if answer.status not in ("granted", "refused", "blocked"):
            raise LedgerAway(answer.status, unknown=len(answers) > 1)
        first, count = answer.layout.first, len(answer.layout.claims)
        refusing, wait, *rest = answer.numbers
        if blocked and answer.status != "blocked":
            refusing = 0  # it does not matter any more
        if refusing and (not worst[0] or _is_longer(wait, worst[1])):
            worst = [refusing + first, wait]
        numbers += rest[:count]
        for i in range(count, len(rest), 3):
            rules += [rest[i] + first, *rest[i + 1 : i + 3]]
    now = max(answer.now for answer in answers)
    return verdict_of(claims, [now, *worst, *numbers, *rules], blocked=blocked)


def _is_longer(wait: int, other: int) -> bool:
    return other != NEVER and (wait == NEVER or wait > other)


def _whole(layouts: Sequence[Layout], outcomes: Sequence[Answer | BaseException]) -> list[Answer]:
    answers = [one for one in outcomes if isinstance(one, Answer)]
    faults = [one for one in outcomes if isinstance(one, BaseException)]
    for fault in faults:
        if not isinstance(fault, LedgerAway):
            raise fault
    if faults:
        missed = [isinstance(one, LedgerAway) and not one.unknown for one in outcomes]
        reached = [layout for layout, miss in zip(layouts, missed, strict=True) if not miss]
        raise Torn(str(faults[0]), reached) from faults[0]
    return answers
