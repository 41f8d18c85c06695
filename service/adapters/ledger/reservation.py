"""Reservation: the claims of one request on their way through the ledger, and how a call lays them out."""

import secrets
from collections.abc import Callable, Sequence

from service.adapters.ledger.link import Argument
from service.domain.policy import UNIT, Claim
from service.domain.usage import NOTHING, Usage


class Reservation:
    """Claims that were, or may have been, granted. Its id is ours, never the client's."""

    __slots__ = ("claims", "ends", "granted", "id", "lost", "produced", "renewed", "tried", "uncertain")

    def __init__(self, claims: Sequence[Claim], *, keep_lost: bool = True) -> None:
        self.id = secrets.token_urlsafe(12)
        self.claims = tuple(sorted(claims, key=lambda claim: claim.subject))
        self.lost = "k" if keep_lost else "u"  # what happens to its charges when its lease ends
        self.ends = 0  # when the lease ends, ms of ledger time; 0 while nobody knows that it was granted
        self.renewed = 0.0  # when it was last renewed, s of the worker's clock
        self.granted = False  # the request may go on: the ledger said so, or it is done without
        self.uncertain = False  # some call was made whose outcome nobody knows
        self.tried = False  # and it was a settle: it may have been settled
        self.produced: Callable[[], Usage] | None = None  # what was used so far, while a stream flows

    def amounts(self) -> list[int]:
        """What it asks for, in thousandths."""
        return [claim.amount for claim in self.claims]

    def so_far(self) -> list[int]:
        """What it has used until now, in thousandths, while it is open."""
        produced = self.produced() if self.produced else NOTHING
        return [
            claim.policy.amount(produced) if claim.policy.count.is_tokens else UNIT for claim in self.claims
        ]

    def settled(self, usage: Usage) -> list[int]:
        """What stays charged in the end, in thousandths."""
        return [claim.settled(usage) for claim in self.claims]


def layout(claims: Sequence[Claim], amounts: Sequence[int]) -> tuple[list[str], list[Argument]]:
    """KEYS and the policies' ARGV of a call; the claims of a subject stand together."""
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
