"""Leases: the reservations of this worker that are open, each renewed when a third of its lease has run."""

import asyncio
from collections.abc import Awaitable, Callable

from service.adapters.ledger.reservation import Reservation

Renew = Callable[[Reservation, list[int]], Awaitable[bool]]


class Leases:
    """What is open. `lease` is in seconds.

    `renew` renews one, telling what it has used so far, and says whether it is open still.
    """

    def __init__(self, renew: Renew, *, lease: float, clock: Callable[[], float]) -> None:
        self._renew = renew
        self._round = lease / 6
        self._clock = clock
        self._open: dict[str, Reservation] = {}
        self._confirming: set[asyncio.Task[None]] = set()

    def __contains__(self, reservation: Reservation) -> bool:
        """Whether it is open, as far as this worker knows."""
        return reservation.id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def add(self, reservation: Reservation) -> None:
        """It was granted just now."""
        reservation.renewed = self._clock()
        self._open[reservation.id] = reservation

    def drop(self, reservation: Reservation) -> None:
        """It is over, or the ledger does not know it any more."""
        self._open.pop(reservation.id, None)

    def confirm(self, reservation: Reservation) -> None:
        """Let one that was made in several calls stand, while its request is already on its way."""
        task = asyncio.get_running_loop().create_task(self._insist(reservation))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    def close(self) -> None:
        """Confirm no more."""
        for task in self._confirming:
            task.cancel()

    async def run(self) -> None:
        """Renew, for ever, what was last renewed a round ago.

        Each begins in a turn of the event loop of its own, as counting what a stream produced takes time.
        """
        while True:
            await asyncio.sleep(self._round)
            due = self._clock() - self._round
            renewals = []
            for reservation in [one for one in self._open.values() if one.renewed <= due]:
                renewals.append(asyncio.create_task(self._renew_one(reservation)))
                await asyncio.sleep(0)
            await asyncio.gather(*renewals)

    async def _insist(self, reservation: Reservation) -> None:
        tentative = reservation.ends
        for pause in (0.0, 0.1, 0.5, 1.0, 2.0):
            await asyncio.sleep(pause)
            if reservation not in self or not await self._renewed(reservation):
                return
            if reservation.ends > tentative:
                return

    async def _renewed(self, reservation: Reservation) -> bool:
        """Renew one that is open still when it is known what it has used."""
        amounts = await reservation.so_far(self._round / 2)
        return reservation in self and await self._renew(reservation, amounts)

    async def _renew_one(self, reservation: Reservation) -> None:
        try:
            if await self._renewed(reservation):
                reservation.renewed = self._clock()
            else:
                self.drop(reservation)
        except Exception as error:  # a fault in one must not end the renewals of all
            told = {"message": "a lease could not be renewed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
