"""Ledger: where claims are reserved, renewed and settled, in Redis, by the scripts in lua/."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from service.adapters.ledger.leases import Leases
from service.adapters.ledger.link import Argument, LedgerAway, Link
from service.adapters.ledger.outbox import Letter, Outbox
from service.adapters.ledger.reservation import Reservation, layout
from service.adapters.ledger.scripts import Script
from service.domain.policy import Claim, Verdict, verdict_of
from service.domain.usage import NOTHING, Usage

__all__ = ["Ledger", "LedgerAway", "Reservation"]

LATE_AFTER = 5_000  # ms of ledger time in which a call may still be carried out
MARKER = 600_000  # ms; as in lua/account.lua
AT_ANY_TIME = 2**52  # ms; when nothing was granted, nothing is counted twice

Observe = Callable[[str, str, float], None]


class Ledger:
    """Reserve, renew, settle, release, peek and reset, over one `Link`.

    `lease` and `deadline` in seconds; a reserve gets two tries within the deadline, under one id.
    `observe(call, result, seconds)` hears of every call. `open` and `close` frame its life.
    """

    def __init__(
        self,
        link: Link,
        *,
        lease: float = 60.0,
        deadline: float = 0.25,
        observe: Observe = lambda call, result, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._lease = round(lease * 1000)
        self._deadline = deadline
        self._observe = observe
        self._clock = clock
        self._ahead = 0.0  # ledger time less our clock, ms
        self._leases = Leases(self._renew, lease=lease, clock=clock)
        self._outbox = Outbox(self._deliver)
        self._tasks: list[asyncio.Task[None]] = []
        self._heard = 0.0  # when the ledger last answered, s of our clock
        self.lost = 0  # leases that calls of ours found ended, with nobody having settled
        self.available = True  # whether the last call was answered

    async def open(self) -> None:
        """Warm the link, and begin to renew leases and to deliver what is pending."""
        with suppress(LedgerAway):
            await self._link.warm()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._leases.run()), loop.create_task(self._outbox.run())]

    async def close(self, grace: float = 2.0) -> None:
        """Deliver what is pending, for at most `grace` seconds, and close the link."""
        await self._outbox.empty(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    @property
    def reservations(self) -> int:
        """How many are open, as far as this worker knows."""
        return len(self._leases)

    @property
    def pending(self) -> int:
        """How many settles wait to be delivered."""
        return self._outbox.waiting

    @property
    def dropped(self) -> int:
        """How many settles could not be kept until they were delivered."""
        return self._outbox.dropped

    def now(self) -> int:
        """The ledger's time in ms, as last seen; long past where it was never seen."""
        return round(self._clock() * 1000 + self._ahead)

    async def reserve(self, reservation: Reservation) -> Verdict:
        """Charge the claims, or none of them. Raises LedgerAway; settle or release after, whatever came."""
        for last in (False, True):
            try:
                status, numbers = await self._call(
                    "reserve",
                    self._link.scripts.reserve,
                    reservation,
                    reservation.amounts(),
                    [reservation.id, self._lease, reservation.lost],
                    deadline=self._deadline / 2,
                )
                break
            except LedgerAway as away:
                reservation.uncertain |= away.unknown
                if last:
                    raise
            except asyncio.CancelledError:
                reservation.uncertain = True
                raise
        if status not in ("granted", "refused"):
            raise LedgerAway(status, unknown=False)
        verdict = verdict_of(reservation.claims, numbers)
        if verdict.granted:
            reservation.ends = verdict.now + self._lease
            reservation.granted = True
            self._leases.add(reservation)
        return verdict

    async def settle(self, reservation: Reservation, usage: Usage) -> str:
        """Replace what was charged by what was used. Never raises; what cannot be delivered waits."""
        return await self._close(Letter("settle", reservation, usage))

    async def release(self, reservation: Reservation) -> str:
        """Give everything back: the request went nowhere. Never raises; what cannot be delivered waits."""
        return await self._close(Letter("release", reservation, NOTHING))

    async def peek(self, claims: Sequence[Claim]) -> tuple[int, dict[str, int]]:
        """How many reservations and markers a subject has, and what each policy charged, in thousandths."""
        return await self._look(self._link.scripts.peek, claims)

    async def reset(self, claims: Sequence[Claim]) -> None:
        """Make the charges of a subject's policies zero."""
        await self._look(self._link.scripts.reset, claims)

    async def check(self, silence: float = 1.0) -> bool:
        """Whether the ledger is there: asked, where it said nothing for `silence` seconds."""
        if self._clock() - self._heard > silence:
            self.available = await self._link.is_there()
        return self.available

    async def _look(self, script: Script, claims: Sequence[Claim]) -> tuple[int, dict[str, int]]:
        claims = tuple(claims)
        if len({claim.subject for claim in claims}) != 1:
            raise ValueError("one subject at a time")
        keys, policies = layout(claims, [0] * len(claims))
        _, numbers = await self._run(script, keys, ["", *policies], deadline=1.0)
        names = [claim.policy.name for claim in claims]
        return numbers[1], dict(zip(names, numbers[3:], strict=True))

    # -- the wire --------------------------------------------------------------------------------

    async def _call(
        self,
        name: str,
        script: Script,
        reservation: Reservation,
        amounts: Sequence[int],
        arguments: Sequence[Argument],
        *,
        deadline: float,
    ) -> tuple[str, list[int]]:
        """One call; once more where it was late: then the ledger's time was not known, and now it is."""
        keys, policies = layout(reservation.claims, amounts)
        began, status = self._clock(), "error"
        try:
            for _ in range(2):
                call = ["", self.now() + LATE_AFTER, *arguments, *policies]
                left = began + deadline - self._clock()
                status, numbers = await self._run(script, keys, call, deadline=left)
                if status != "late":
                    return status, numbers
            raise LedgerAway("late", unknown=False)
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            self._hear(name, status, self._clock() - began)

    async def _run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        """Status and numbers of a script, less what every answer tells about the ledger itself."""
        status, (now, *numbers) = await self._link.run(script, keys, arguments, deadline=deadline)
        self._heard = self._clock()
        self._ahead = now - self._heard * 1000
        if numbers:
            self.lost += numbers.pop(0)
        return status, [now, *numbers]

    def _hear(self, name: str, status: str, seconds: float) -> None:
        """Tell how a call went; one that its caller gave up says nothing about the ledger."""
        if status == "cancelled":
            return
        self.available = status != "error"
        self._observe(name, status if status in ("error", "late") else "ok", seconds)

    async def _close(self, letter: Letter) -> str:
        self._leases.drop(letter.reservation)
        try:
            for _ in range(2):
                with suppress(LedgerAway):
                    return await self._deliver(letter)
        except asyncio.CancelledError:
            self._outbox.put(letter)
            raise
        self._outbox.put(letter)
        return "pending"

    async def _deliver(self, letter: Letter) -> str:
        reservation = letter.reservation
        first, mark = not reservation.tried, reservation.uncertain or letter.verb == "release"
        forget = reservation.ends + MARKER if reservation.ends else AT_ANY_TIME
        arguments: list[Argument] = [reservation.id, letter.verb, int(first), int(mark), forget]
        unknown = True
        try:
            status, _ = await self._call(
                letter.verb,
                self._link.scripts.settle,
                reservation,
                reservation.settled(letter.usage),
                arguments,
                deadline=self._deadline,
            )
            unknown = False
        except LedgerAway as away:
            unknown = away.unknown
            raise
        finally:
            reservation.tried |= unknown
            reservation.uncertain |= unknown
        return status

    async def _renew(self, reservation: Reservation) -> bool:
        """Renew a lease; False where the ledger knows the reservation no more."""
        arguments: list[Argument] = [reservation.id, self._lease, reservation.lost]
        try:
            status, numbers = await self._call(
                "renew",
                self._link.scripts.renew,
                reservation,
                reservation.so_far(),
                arguments,
                deadline=self._deadline,
            )
        except LedgerAway:
            return True  # the next round tries again
        if status != "renewed":
            return False
        reservation.ends = numbers[0] + self._lease
        return True
