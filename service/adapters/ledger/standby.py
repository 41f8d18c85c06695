"""Standby: who decides while the ledger is away, and by which part of the limits."""

import time
from collections.abc import Callable

from service.adapters.ledger.calls import Calls
from service.adapters.ledger.heartbeat import Heartbeat
from service.adapters.ledger.outbox import Letter
from service.adapters.ledger.reservation import Reservation
from service.adapters.ledger.scripts import Script
from service.domain.local import Shares, without_ledger
from service.domain.policy import OnLedgerFailure, Verdict


class Standby:
    """The shares of this worker. `alone` is how many workers there are while nobody has counted them.

    Time is the ledger's, as last seen; `wall` is ours, in seconds since 1970, where it was never seen.
    """

    def __init__(
        self, calls: Calls, script: Script, *, alone: int, wall: Callable[[], float] = time.time
    ) -> None:
        self._calls = calls
        self._wall = wall
        self._shares = Shares()
        self.heartbeat = Heartbeat(calls, script, alone=alone)

    def reserve(self, reservation: Reservation) -> Verdict | None:
        """Charge the claims of policies that are `local`, or none of them; None where there are none."""
        reservation.alone = now = self._now()
        local = [one for one in reservation.claims if without_ledger(one.policy) is OnLedgerFailure.LOCAL]
        said = self._shares.reserve(reservation.id, local, now, self.heartbeat.alive) if local else None
        reservation.granted = said is None or said.granted
        return said

    def close(self, letter: Letter) -> None:
        """Correct what was charged here, if anything was, as the letter tells the ledger."""
        if letter.verb == "release":
            self._shares.release(letter.reservation.id, self._now())
        else:
            self._shares.settle(letter.reservation.id, letter.usage, self._now())

    def _now(self) -> int:
        return self._calls.now() if self._calls.heard else round(self._wall() * 1000)
