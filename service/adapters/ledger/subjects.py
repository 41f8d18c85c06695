"""Subjects: what an operator asks of them, and rules about them: peek, reset, another limit, a block."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from service.adapters.ledger import walk
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.calls import Calls
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.reservation import layout
from service.adapters.ledger.scripts import Script
from service.adapters.ledger.walk import Found
from service.adapters.ledger.wire import Wire
from service.domain.policy import Claim, Standing, verdict_of

PATIENCE = 2.0  # s; an operator can wait


@dataclass(frozen=True, slots=True)
class Seen:
    """How a subject stands: `entries` counts its reservations and markers.

    `now` and `blocked_until` (0: it is not) are ms of the ledger's clock.
    """

    now: int
    entries: int
    blocked_until: int
    standings: tuple[Standing, ...]


class Subjects:
    """The subjects in a store. Amounts of claims do not matter here. Every method raises LedgerAway."""

    def __init__(self, wire: Wire, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._wire = wire
        self._scripts = wire.scripts
        self._calls = Calls(wire, observe=lambda call, result, seconds: None, clock=clock)

    async def peek(self, claims: Sequence[Claim]) -> Seen:
        """How one subject stands with the policies of the claims."""
        now, entries, blocked, *numbers = await self._look(self._scripts.peek, claims)
        verdict = verdict_of(tuple(claims), [now, 0, 0, *numbers])
        return Seen(now, entries, blocked, tuple(verdict.standings()))

    async def written(self, subject: str, names: Sequence[str]) -> Found:
        """What is written of one subject about the accounts of these names."""
        for link in await self._wire.masters():
            values = await link.ask("HMGET", subject, *walk.parts(names))
            if isinstance(values, list):  # the other masters refuse, as it is none of theirs
                return walk.found(subject, names, values)
        raise LedgerAway("no master has the subject", unknown=False)

    def walk(self, names: Sequence[str]) -> AsyncIterator[tuple[int, list[Found]]]:
        """Every subject that has some of the accounts of these names, perhaps twice; as `walk` gives them."""
        return walk.walk(self._wire, names)

    async def reset(self, claims: Sequence[Claim]) -> None:
        """Make the charges of one subject's policies zero."""
        await self._look(self._scripts.reset, claims)

    async def block(self, subject: str, until: int) -> None:
        """Let nothing of a subject pass until then, ms of the ledger's clock; 0 takes it back."""
        await self._rule(subject, "", until, 0, 0)

    async def allow(self, subject: str, account: str, until: int, *, limit: int, capacity: int) -> None:
        """Put another limit in place of an account's own until then; 0 takes it back."""
        await self._rule(subject, account, until, limit, capacity)

    async def _rule(self, subject: str, account: str, until: int, limit: int, capacity: int) -> None:
        arguments: list[Argument] = ["", account, until, limit, capacity]
        await self._calls.run(self._scripts.rule, [subject], arguments, deadline=PATIENCE)

    async def _look(self, script: Script, claims: Sequence[Claim]) -> list[int]:
        if len({claim.subject for claim in claims}) != 1:
            raise ValueError("one subject at a time")
        return await self._calls.look(script, layout(claims), deadline=PATIENCE)
