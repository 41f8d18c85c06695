"""Reservation: the claims of one request on their way through the ledger, and how a call lays them out."""

import asyncio
import secrets
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from service.adapters.ledger.link import Argument
from service.domain.local import outlived
from service.domain.policy import Claim, Policy
from service.domain.usage import NOTHING, Usage

MARKER = 600_000  # ms; as in lua/account.lua
AT_ANY_TIME = 2**52  # ms; when nothing was granted, nothing is counted twice

_POLICY = struct.Struct(">BBBddd")  # as in lua/account.lua
_BOUNDARIES = struct.Struct(">ddd")


@dataclass(frozen=True, slots=True)
class Layout:
    """Claims as a script reads them: KEYS, the fixed part of the policies, and the names of the accounts.

    Claims of one subject stand together, from `first` on in the reservation they are of.
    """

    claims: tuple[Claim, ...]
    keys: tuple[str, ...]
    fixed: bytes
    calendars: tuple[Policy, ...]
    names: tuple[str, ...]
    first: int = 0

    def arguments(self, amounts: Sequence[int], now: int) -> list[Argument]:
        """Policies, amounts and names; calendars with the boundaries around `now`, ms of ledger time."""
        policies = self.fixed
        for policy in self.calendars:
            assert policy.calendar is not None
            policies += _BOUNDARIES.pack(*policy.calendar.boundaries(now))
        mine = amounts[self.first : self.first + len(self.claims)]
        return [policies, struct.pack(f">{len(mine)}d", *mine), *self.names]


def layout(claims: Sequence[Claim], first: int = 0) -> Layout:
    """How a call lays out claims that are sorted by their subjects."""
    keys: list[str] = []
    fixed = []
    for claim in claims:
        if not keys or keys[-1] != claim.subject:
            keys.append(claim.subject)
        policy = claim.policy
        enforced = 1 if policy.enforce else 0
        fixed.append(
            _POLICY.pack(len(keys), policy.kind, enforced, policy.allowed, policy.capacity, policy.window)
        )
    return Layout(
        tuple(claims),
        tuple(keys),
        b"".join(fixed),
        tuple(claim.policy for claim in claims if claim.policy.calendar),
        tuple(claim.policy.account for claim in claims),
        first,
    )


class Reservation:
    """Claims that were, or may have been, granted. Its id is ours, never the client's."""

    __slots__ = (
        "_layouts",
        "alone",
        "claims",
        "ends",
        "granted",
        "id",
        "keep_lost",
        "produced",
        "renewed",
        "tried",
        "uncertain",
    )

    def __init__(self, claims: Sequence[Claim], *, keep_lost: bool = True) -> None:
        self.id = secrets.token_urlsafe(12)
        self.claims = tuple(sorted(claims, key=lambda claim: claim.subject))
        self.keep_lost = keep_lost  # whether its charges stay when its lease ends and nobody settled
        self.ends = 0  # when the lease ends, ms of ledger time; 0 while nobody knows that it was granted
        self.renewed = 0.0  # when it was last renewed, s of the worker's clock
        self.granted = False  # the request may go on: the ledger said so, or it is done without
        self.uncertain = False  # some call was made whose outcome nobody knows
        self.alone = 0  # when it was let pass with the ledger away, ms of ledger time; 0: it was not
        self.tried: set[int] = set()  # layouts, by `first`, that may have been settled
        # What was used so far, while a stream flows.
        self.produced: Callable[[], Awaitable[Usage]] | None = None
        self._layouts: list[Layout] = []

    def layouts(self, *, split: bool) -> Sequence[Layout]:
        """One call for all, or one for each subject where the ledger is split over several servers."""
        if not self._layouts:
            if split:
                grouped = groupby(enumerate(self.claims), key=lambda one: one[1].subject)
                for _, group in grouped:
                    numbered = list(group)
                    self._layouts.append(layout([claim for _, claim in numbered], numbered[0][0]))
            else:
                self._layouts.append(layout(self.claims))
        return self._layouts

    @property
    def forget(self) -> int:
        """Until when what the ledger knows nothing of is charged, ms of ledger time: then markers may end."""
        return self.ends + MARKER if self.ends else AT_ANY_TIME

    def amounts(self) -> list[int]:
        """What it asks for, in units of the ledger."""
        return [claim.amount for claim in self.claims]

    async def so_far(self, patience: float) -> list[int]:
        """What it has used until now, in units of the ledger, while it is open.

        As if that were nothing yet, where counting takes more than `patience` seconds: a lease goes before.
        """
        produced = NOTHING
        if self.produced:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    produced = await self.produced()
        return [claim.so_far(produced) for claim in self.claims]

    def settled(self, usage: Usage, now: int) -> list[int]:
        """What stays charged in the end, in units of the ledger.

        Of what the ledger knows nothing of, that is what an account would not have forgotten by now.
        """
        late = self.alone and not self.uncertain
        return [
            0 if late and outlived(claim.policy, self.alone, now) else claim.settled(usage)
            for claim in self.claims
        ]
