"""Top: the subjects that have used the greatest share of a limit, of all that are in the ledger."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.walk import Found
from service.columns import table
from service.domain.limit_headers import amount
from service.domain.local import window_at
from service.domain.policy import Policy
from service.quota.book import Book
from service.quota.sheet import plain, written
from service.quota.subject import digest_in

_HEAD = ("subject", "policy", "charged", "limit", "share")


@dataclass(frozen=True, slots=True)
class Place:
    """What a subject has used of a policy's limit, both in the ledger's units."""

    subject: str
    policy: Policy
    charged: int
    limit: int

    @property
    def share(self) -> float:
        """1 where the limit is reached."""
        return self.charged / self.limit


class Highest:
    """The `most` places of the highest shares among those offered, one for each subject; it holds no more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, str, Place]] = []
        self._held: set[str] = set()

    def offer(self, place: Place) -> None:
        """Keep it, where it is among the highest; a subject that is there stays as it is."""
        if place.subject in self._held:
            return
        self._held.add(place.subject)
        heappush(self._heap, (place.share, place.subject, place))
        if len(self._heap) > self._most:
            self._held.remove(heappop(self._heap)[1])

    def places(self) -> list[Place]:
        """The highest first."""
        return [place for _, _, place in sorted(self._heap, reverse=True)]


async def top(subjects: Subjects, book: Book, *, most: int, policy: str | None) -> tuple[list[Place], int]:
    """The highest places, and how many subjects were looked at. Raises LedgerAway, and Misasked."""
    if policy:
        book.check(policy)
    highest, seen = Highest(most), 0
    async for now, batch in subjects.walk(book.accounts()):
        seen += len(batch)
        for found in batch:
            used = [
                one for one in _places(found, now, book) if one.charged and policy in (None, one.policy.name)
            ]
            if used:
                highest.offer(max(used, key=lambda place: place.share))
    return highest.places(), seen


def for_people(places: list[Place], seen: int) -> str:
    """A table, above a line about how many were looked at."""
    rows = [_row(place) for place in places]
    return f"{table([_HEAD, *rows])}\nlooked at {seen} subjects"


def for_programs(places: list[Place], seen: int) -> str:
    """The same as JSON."""
    return json.dumps({"looked_at": seen, "subjects": [_members(place) for place in places]}, indent=2)


def _places(found: Found, now: int, book: Book) -> Iterator[Place]:
    """Where a subject is now with each account, under an operator's limit where there is one."""
    for name, account in found.accounts.items():
        policy, rule = book.policy(name, account), found.rules.get(name)
        account.roll(now, *window_at(policy, now))
        limit = rule.limit if rule and rule.until > now else policy.allowed
        yield Place(found.subject, policy, account.standing(), limit)


def _row(place: Place) -> tuple[str, ...]:
    return (
        digest_in(place.subject),
        place.policy.name,
        written(amount(place.policy, place.charged, up=True)),
        written(amount(place.policy, place.limit)),
        f"{place.share:.1%}",
    )


def _members(place: Place) -> dict[str, object]:
    return {
        "subject": digest_in(place.subject),
        "policy": place.policy.name,
        "count": place.policy.count,
        "charged": plain(amount(place.policy, place.charged, up=True)),
        "limit": plain(amount(place.policy, place.limit)),
        "share": round(place.share, 6),
    }
