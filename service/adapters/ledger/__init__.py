"""Ledger: where claims are reserved, renewed and settled, in Redis, by the scripts in lua/."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from service.adapters.ledger.breaker import UNASKED, Guard, State
from service.adapters.ledger.calls import LATE_AFTER, Calls, Carries, Observe, Torn, verdict
from service.adapters.ledger.leases import Leases
from service.adapters.ledger.link import Argument, LedgerAway
from service.adapters.ledger.outbox import Letter, Outbox
from service.adapters.ledger.reservation import Layout, Reservation
from service.adapters.ledger.standby import Standby
from service.domain.policy import Verdict
from service.domain.usage import NOTHING, Usage

__all__ = ["Ledger", "LedgerAway", "Reservation"]

TENTATIVE = 5_000  # ms; the lease of a reservation made in several calls, until it is confirmed


class Ledger:
    """Reserve, renew, settle and release, over one wire.

    `lease` and `deadline` in seconds; a reserve gets two tries within the deadline, under one id. `workers`
    is how many of them there are, until they have counted each other.
    `observe(call, result, seconds)` hears of every call. `open` and `close` frame its life.
    """

    def __init__(
        self,
        wire: Carries,
        *,
        lease: float = 60.0,
        deadline: float = 0.25,
        workers: int = 1,
        observe: Observe = lambda call, result, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = wire
        self._scripts = wire.scripts
        self._lease = round(lease * 1000)
        self._deadline = deadline
        self._clock = clock
        self.guard = Guard(wire, clock=clock)
        self._calls = Calls(self.guard, observe=observe, clock=clock)
        self._standby = Standby(self._calls, wire.scripts.heartbeat, alone=workers)
        self._leases = Leases(self._renew, lease=lease, clock=clock)
        self._outbox = Outbox(self._deliver, patience=self.guard.patience)
        self._tasks: list[asyncio.Task[None]] = []
        self.forgotten = 0  # settles that came so late that nobody could say whether they had been counted

    async def open(self) -> None:
        """Warm the wire, and begin to beat, to renew leases, and to deliver what is pending."""
        with suppress(LedgerAway):
            await self._wire.warm()
            await self._standby.heartbeat.beat()  # which tells the time
        for running in (self._leases.run(), self._outbox.run(), self._standby.heartbeat.run()):
            self._tasks.append(asyncio.create_task(running))

    async def close(self, grace: float = 2.0) -> None:
        """Deliver what is pending, for at most `grace` seconds, and close the wire."""
        self.guard.breaker.reset()  # it is the last chance
        await self._outbox.empty(grace)
        self._leases.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._standby.heartbeat.leave()
        await self._wire.close()

    @property
    def reservations(self) -> int:
        """How many are open, as far as this worker knows."""
        return len(self._leases)

    @property
    def lost(self) -> int:
        """Leases that calls of ours found ended, with nobody having settled."""
        return self._calls.lost

    @property
    def available(self) -> bool:
        """Whether the last call was answered."""
        return self._calls.available

    @property
    def pending(self) -> int:
        """How many settles wait to be delivered."""
        return self._outbox.waiting

    @property
    def dropped(self) -> int:
        """How many settles could not be kept until they were delivered."""
        return self._outbox.dropped

    @property
    def workers(self) -> int:
        """How many workers are alive, as far as this one knows."""
        return self._standby.heartbeat.alive

    @property
    def breaker(self) -> State:
        """Whether the ledger is asked at all."""
        return self.guard.state

    def now(self) -> int:
        """The ledger's time in ms, as last seen; long past where it was never seen."""
        return self._calls.now()

    async def reserve(self, reservation: Reservation) -> Verdict:
        """Charge the claims, or none of them. Raises LedgerAway; settle or release after, whatever came."""
        if self._outbox.waiting and self.guard.state is not State.CLOSED:
            raise LedgerAway(UNASKED, unknown=False)  # what is pending goes first
        layouts = reservation.layouts(split=self._wire.splits)
        tentative = len(layouts) > 1
        lease = TENTATIVE if tentative else self._lease
        undo = int(tentative or not reservation.keep_lost)
        until = self._clock() + self._deadline
        for last in (False, True):
            try:
                answers = await self._calls.ask_all(
                    "reserve",
                    self._scripts.reserve,
                    layouts,
                    reservation.amounts(),
                    lambda _: [reservation.id, lease, undo],
                    deadline=max(self._deadline / 2, last * (until - self._clock())),
                )
                said = verdict(reservation.claims, answers)
                break
            except LedgerAway as away:
                if away.unknown:
                    self._doubt(reservation)
                if last:
                    raise
            except asyncio.CancelledError:
                self._doubt(reservation)
                raise
        if said.granted:
            reservation.ends = said.now + lease
            reservation.granted = True
            self._leases.add(reservation)
            if tentative:
                self._leases.confirm(reservation)
        elif any(answer.status == "granted" for answer in answers):  # it is undone at once
            reservation.uncertain = True
            await self.release(reservation)
            reservation.uncertain = False
        return said

    def stand_in(self, reservation: Reservation) -> Verdict | None:
        """What this worker says by its shares, as the ledger is away; None where no policy is `local`.

        What it lets pass is told to the ledger when that is back.
        """
        return self._standby.reserve(reservation)

    async def settle(self, reservation: Reservation, usage: Usage) -> str:
        """Replace what was charged by what was used. Never raises; what cannot be delivered waits."""
        return await self._close(Letter("settle", reservation, usage))

    async def release(self, reservation: Reservation) -> str:
        """Give everything back: the request went nowhere. Never raises; what cannot be delivered waits."""
        return await self._close(Letter("release", reservation, NOTHING))

    async def check(self, silence: float = 1.0) -> bool:
        """Whether the ledger is there: asked, where it said nothing for `silence` seconds.

        Where the breaker wants to know, and nothing else is pending, a beat of the heart finds out.
        """
        calls = self._calls
        if self.guard.state is State.HALF_OPEN and not self._outbox.waiting:
            await self._standby.heartbeat.beat()
        if self.guard.state is not State.CLOSED:
            calls.available = False
        elif not calls.available or self._clock() - calls.heard > silence:
            calls.available = await self._wire.is_there()
        return calls.available

    # -- the wire --------------------------------------------------------------------------------

    async def _close(self, letter: Letter) -> str:
        reservation = letter.reservation
        self._leases.drop(reservation)
        self._standby.close(letter)
        if letter.verb == "release" and reservation.alone and not reservation.uncertain:
            return "again"  # the ledger never heard of it
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
        reached = layouts = reservation.layouts(split=self._wire.splits)
        mark, unknown = reservation.uncertain or letter.verb == "release", True

        def told(one: Layout) -> list[Argument]:
            first = one.first not in reservation.tried
            return [reservation.id, letter.verb, int(first), int(mark), reservation.forget]

        try:
            answers = await self._calls.ask_all(
                letter.verb,
                self._scripts.settle,
                layouts,
                reservation.settled(letter.usage, self.now()),
                told,
                deadline=self._deadline,
            )
            unknown = False
        except Torn as torn:
            reached, unknown = torn.reached, torn.unknown
            raise
        finally:
            reservation.tried |= {one.first for one in reached}
            reservation.uncertain |= unknown
        self.forgotten += any(answer.status == "forgotten" for answer in answers)
        return answers[0].status

    def _doubt(self, reservation: Reservation) -> None:
        """It may have been granted; then its lease ends by the time that is noted here."""
        reservation.uncertain = True
        if self._calls.heard:
            reservation.ends = self.now() + LATE_AFTER + self._lease

    async def _renew(self, reservation: Reservation, amounts: list[int]) -> bool:
        """Renew a lease; False where the ledger knows the reservation no more."""
        try:
            answers = await self._calls.ask_all(
                "renew",
                self._scripts.renew,
                reservation.layouts(split=self._wire.splits),
                amounts,
                lambda _: [reservation.id, self._lease, int(not reservation.keep_lost)],
                deadline=self._deadline,
            )
        except LedgerAway:
            return True  # the next round tries again
        renewed = [answer.status == "renewed" for answer in answers]
        if all(renewed):  # else what ended before may be forgotten before
            reservation.ends = min(answer.now for answer in answers) + self._lease
        return any(renewed)
