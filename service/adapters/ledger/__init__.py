"""Ledger: where claims are reserved, renewed and settled, in Redis, by the scripts in lua/."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from service.adapters.ledger.link import Argument, LedgerAway, Link
from service.adapters.ledger.scripts import Script
from service.domain.policy import UNIT, Claim, Policy, Verdict, verdict_of
from service.domain.usage import NOTHING, Usage

__all__ = ["Ledger", "LedgerAway", "Reservation"]

LATE_AFTER = 5_000  # ms of ledger time in which a call may still be carried out
MARKER = 600_000  # ms; as in lua/account.lua
PENDING = 10_000  # settles that may wait for the ledger's return

Observe = Callable[[str, str, float], None]


class Reservation:
    """Claims that were, or may have been, granted. Its id is ours, never the client's."""

    __slots__ = ("claims", "ends", "id", "lost", "produced", "renewed", "uncertain")

    def __init__(self, claims: Sequence[Claim], *, keep_lost: bool = True) -> None:
        self.id = secrets.token_urlsafe(12)
        self.claims = tuple(sorted(claims, key=lambda claim: claim.subject))
        self.lost = "k" if keep_lost else "u"  # what happens to its charges when its lease ends
        self.ends = 0  # when the lease ends, ms of ledger time
        self.renewed = 0.0  # when it was last renewed, s of the worker's clock
        self.uncertain = False  # a try was made whose outcome nobody knows
        self.produced: Callable[[], Usage] | None = None  # what was used so far, while a stream flows


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
        self._reservations: dict[str, Reservation] = {}
        self._pending: asyncio.Queue[tuple[str, Reservation, Usage]] = asyncio.Queue(PENDING)
        self._tasks: list[asyncio.Task[None]] = []
        self.dropped = 0  # settles that could not be kept
        self.available = True  # whether the last call was answered

    async def open(self) -> None:
        """Warm the link, and begin to renew leases and to deliver what is pending."""
        with suppress(LedgerAway):
            await self._link.warm()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._renew_leases()), loop.create_task(self._deliver())]

    async def close(self, grace: float = 2.0) -> None:
        """Deliver what is pending, for at most `grace` seconds, and close the link."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._pending.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    @property
    def reservations(self) -> int:
        """How many are open, as far as this worker knows."""
        return len(self._reservations)

    @property
    def pending(self) -> int:
        """How many settles wait to be delivered."""
        return self._pending.qsize()

    def now(self) -> int:
        """The ledger's time in ms, as last seen."""
        return round(self._clock() * 1000 + self._ahead)

    async def reserve(self, reservation: Reservation) -> Verdict:
        """Charge the claims, or none of them. Raises LedgerAway; settle or release after, whatever came."""
        until = self._clock() + self._deadline
        amounts = [claim.amount for claim in reservation.claims]
        for last in (False, True):
            left = until - self._clock()
            try:
                status, numbers = await self._call(
                    "reserve",
                    self._link.scripts.reserve,
                    reservation,
                    amounts,
                    [reservation.id, self._lease, reservation.lost],
                    deadline=left if last else left / 2,
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
            reservation.renewed = self._clock()
            self._reservations[reservation.id] = reservation
        return verdict

    async def settle(self, reservation: Reservation, usage: Usage) -> str:
        """Replace what was charged by what was used. Never raises; what cannot be delivered waits."""
        return await self._close("settle", reservation, usage)

    async def release(self, reservation: Reservation) -> str:
        """Give everything back: the request went nowhere. Never raises; what cannot be delivered waits."""
        return await self._close("release", reservation, NOTHING)

    async def peek(self, claims: Sequence[Claim]) -> tuple[int, dict[str, int]]:
        """How many reservations and markers a subject has, and what each policy charged, in thousandths."""
        return await self._look(self._link.scripts.peek, claims)

    async def reset(self, claims: Sequence[Claim]) -> None:
        """Make the charges of a subject's policies zero."""
        await self._look(self._link.scripts.reset, claims)

    async def _look(self, script: Script, claims: Sequence[Claim]) -> tuple[int, dict[str, int]]:
        claims = tuple(claims)
        if len({claim.subject for claim in claims}) != 1:
            raise ValueError("one subject at a time")
        keys, policies = _layout(claims, [0] * len(claims))
        _, numbers = await self._link.run(script, keys, ["", *policies], deadline=1.0)
        names = [claim.policy.name for claim in claims]
        return numbers[1], dict(zip(names, numbers[3:], strict=True))

    async def maxmemory_policy(self) -> str:
        """What the server does when memory is full; quotas need `noeviction`. Raises LedgerAway."""
        answer = await self._link.ask("CONFIG", "GET", "maxmemory-policy")
        if isinstance(answer, dict):
            answer = [item for pair in answer.items() for item in pair]
        value = answer[1] if isinstance(answer, list) and len(answer) == 2 else b"unknown"
        return value.decode() if isinstance(value, bytes) else str(value)

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
        """One call; once more where it came later than the ledger's clock allows."""
        keys, policies = _layout(reservation.claims, amounts)
        began = self._clock()
        status = "error"
        try:
            for _ in range(2):
                not_after = self.now() + LATE_AFTER if self._ahead else 2**52
                call = ["", not_after, *arguments, *policies]
                status, numbers = await self._link.run(script, keys, call, deadline=deadline)
                self._ahead = numbers[0] - self._clock() * 1000
                if status != "late":
                    return status, numbers
            raise LedgerAway("late", unknown=False)
        finally:
            self.available = status != "error"
            result = {"error": "error", "late": "late"}.get(status, "ok")
            self._observe(name, result, self._clock() - began)

    async def _close(self, verb: str, reservation: Reservation, usage: Usage) -> str:
        self._reservations.pop(reservation.id, None)
        first = True
        for _ in range(2):
            try:
                return await self._try_to_close(verb, reservation, usage, first=first)
            except LedgerAway as away:
                reservation.uncertain |= away.unknown
                first = first and not away.unknown
        self._postpone(verb, reservation, usage)
        return "pending"

    async def _try_to_close(self, verb: str, reservation: Reservation, usage: Usage, *, first: bool) -> str:
        mark = reservation.uncertain or verb == "release"
        amounts = [claim.settled(usage) for claim in reservation.claims]
        forget = (reservation.ends or self.now()) + MARKER
        arguments: list[Argument] = [reservation.id, verb, int(first), int(mark), forget]
        status, _ = await self._call(
            verb, self._link.scripts.settle, reservation, amounts, arguments, deadline=self._deadline
        )
        return status

    def _postpone(self, verb: str, reservation: Reservation, usage: Usage) -> None:
        try:
            self._pending.put_nowait((verb, reservation, usage))
        except asyncio.QueueFull:
            self.dropped += 1

    async def _deliver(self) -> None:
        """Deliver what is pending, one after the other, waiting longer while the ledger is away."""
        wait = 0.1
        while True:
            verb, reservation, usage = await self._pending.get()
            while True:
                try:
                    await self._try_to_close(verb, reservation, usage, first=not reservation.uncertain)
                except LedgerAway as away:
                    reservation.uncertain |= away.unknown
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 2.0)
                else:
                    wait = 0.1
                    break
            self._pending.task_done()

    async def _renew_leases(self) -> None:
        """Renew every reservation whose lease has run for a third."""
        third = self._lease / 3000
        while True:
            await asyncio.sleep(third / 2)
            due = self._clock() - third / 2
            late = [one for one in self._reservations.values() if one.renewed <= due]
            await asyncio.gather(*(self._renew(one) for one in late))

    async def _renew(self, reservation: Reservation) -> None:
        produced = reservation.produced() if reservation.produced else NOTHING
        amounts = [_so_far(claim.policy, produced) for claim in reservation.claims]
        arguments: list[Argument] = [reservation.id, self._lease, reservation.lost]
        try:
            _, numbers = await self._call(
                "renew", self._link.scripts.renew, reservation, amounts, arguments, deadline=self._deadline
            )
        except LedgerAway:
            return  # the next round tries again
        reservation.renewed = self._clock()
        reservation.ends = numbers[0] + self._lease


def _so_far(policy: Policy, produced: Usage) -> int:
    """What an open reservation has used until now, in thousandths."""
    return policy.amount(produced) if policy.count.is_tokens else UNIT


def _layout(claims: tuple[Claim, ...], amounts: Sequence[int]) -> tuple[list[str], list[Argument]]:
    """KEYS and the policies' ARGV of a call."""
    keys: list[str] = []
    policies: list[Argument] = []
    for claim, amount in zip(claims, amounts, strict=True):
        if not keys or keys[-1] != claim.subject:
            keys.append(claim.subject)
        policy = claim.policy
        policies += (
            len(keys),
            policy.account,
            policy.algorithm.value,
            policy.limit * UNIT,
            policy.capacity,
            policy.window,
            amount,
            int(policy.enforce),
        )
    return keys, policies
