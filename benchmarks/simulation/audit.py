"""Audit: makes the calls of all workers, and holds every answer of the ledger against the history."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby

from benchmarks.simulation.clock import Clock, Story
from benchmarks.simulation.history import History, Share
from benchmarks.simulation.ledger import LEASE, MARKER, Answer, Ledger
from service.adapters.ledger.reservation import Layout, layout
from service.domain.account import Algorithm
from service.domain.policy import Claim, Policy

NOTICED = 1_000  # ms after its end at which a call certainly finds a lease ended


@dataclass(frozen=True, slots=True)
class Member:
    """Whom requests are charged to: several subjects, several policies of each."""

    whole: Layout
    parts: tuple[Layout, ...]  # by subject
    histories: tuple[History, ...]  # by claim

    @property
    def policies(self) -> list[Policy]:
        return [claim.policy for claim in self.whole.claims]


@dataclass(eq=False, slots=True)
class Reservation:
    """What a request was granted. `ends`: when its lease does, in ms."""

    rid: str
    member: Member
    shares: tuple[Share, ...]
    undo: bool
    ends: int
    is_lost: bool = False
    is_over: bool = False


class Audit:
    """Calls, and `faults`: what the ledger did and should not have. `said` counts its answers."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.faults: list[str] = []
        self.said: Counter[str] = Counter()
        self.compared = 0
        self.above = 0  # of these: where a bucket's lows were merged
        self.histories: dict[tuple[str, str], History] = {}
        self._ledger = ledger
        self._clock = clock
        self._doubtful: Counter[str] = (
            Counter()
        )  # subjects of which nobody knows whether a lease was found ended
        self._numbers = count()

    def member(self, subjects: dict[str, Sequence[Policy]]) -> Member:
        """Somebody whose requests are charged with these policies, by subject."""
        claims = [Claim(policy, key, 0) for key in sorted(subjects) for policy in subjects[key]]
        parts, first = [], 0
        for _, group in groupby(claims, key=lambda claim: claim.subject):
            parts.append(layout(list(group), first))
            first += len(parts[-1].claims)
        histories = [
            self.histories.setdefault((claim.subject, claim.policy.account), History(claim.policy))
            for claim in claims
        ]
        return Member(layout(claims), tuple(parts), tuple(histories))

    def reserve(
        self, member: Member, amounts: Sequence[int], *, undo: bool = False
    ) -> tuple[Answer, Reservation | None]:
        """Ask for the amounts; what was granted, if it was."""
        now, rid = self._clock.now, f"{next(self._numbers):016}"
        answer = self._ledger.reserve(now, rid, member.whole, amounts, undo=undo)
        granted = self._said("reserve", answer, "granted", "refused") == "granted"
        reservation = None
        if granted:
            shares = [one.grant(amount, now) for one, amount in zip(member.histories, amounts, strict=True)]
            reservation = Reservation(rid, member, tuple(shares), undo, now + LEASE)
        self._compare(member.whole, answer, amounts if granted else None)
        return answer, reservation

    def renew(self, reservation: Reservation, used: Sequence[int]) -> None:
        """Move the lease on; so much was used until now."""
        now, member = self._clock.now, reservation.member
        answer = self._ledger.renew(now, reservation.rid, member.whole, used, undo=reservation.undo)
        self._said("renew", answer, "renewed")
        reservation.ends = now + LEASE
        for history, share, amount in zip(member.histories, reservation.shares, used, strict=True):
            history.renew(share, amount, now)

    def settle(self, reservation: Reservation, used: Sequence[int]) -> None:
        """So much was used in all. Where the lease has ended each subject is told by itself."""
        member, late = reservation.member, self._clock.now >= reservation.ends
        for part in member.parts if late else [member.whole]:
            answer = self._settle(reservation, part, used)
            expected = ("settled", "corrected", "forgotten") if late else ("settled",)
            status = self._said("settle", answer, *expected)
            for index in range(part.first, part.first + len(part.claims)):
                self._close(reservation, index, used[index], status)
        reservation.is_over = True

    def settle_again(self, reservation: Reservation, used: Sequence[int]) -> None:
        """The answer to a settle got lost."""
        answer = self._settle(reservation, reservation.member.whole, used, first=False)
        self._said("repetition", answer, "again")

    def release(self, reservation: Reservation) -> None:
        """Nothing was used."""
        whole = reservation.member.whole
        nothing = [0] * len(whole.claims)
        self._said("release", self._settle(reservation, whole, nothing, verb="release"), "settled")
        for index in range(len(nothing)):
            self._close(reservation, index, 0, "settled")
        reservation.is_over = True

    def lose(self, reservation: Reservation) -> Story:
        """Nobody renews a reservation any more: its lease ends, which a call finds within a second."""
        yield reservation.ends - 1  # before any call can notice
        if reservation.is_over:
            return
        reservation.is_lost = True
        keys = reservation.member.whole.keys
        self._doubtful.update(keys)
        for history, share in zip(reservation.member.histories, reservation.shares, strict=True):
            if reservation.undo or history.policy.algorithm is Algorithm.CONCURRENCY:
                history.undo(share, self._clock.now)
        yield reservation.ends + NOTICED
        self._doubtful.subtract(keys)

    def forget(self, reservation: Reservation) -> None:
        """Its worker has died: nobody will settle it."""
        for history, share in zip(reservation.member.histories, reservation.shares, strict=True):
            history.close(share, self._clock.now)

    def close(self, members: Sequence[Member]) -> Story:
        """When all is over: nothing is open, the accounts are as the histories, and P1 was kept."""
        for wait in (LEASE + NOTICED, MARKER + NOTICED, NOTICED):
            yield self._clock.now + wait
            for member in members:
                nothing = [0] * len(member.whole.claims)
                _, reservation = self.reserve(member, nothing)
                if reservation:
                    self.settle(reservation, nothing)
        for part in {part.keys: part for member in members for part in member.parts}.values():
            seen = self._ledger.peek(self._clock.now, part)
            if seen.refusing:
                self.faults.append(f"{seen.refusing} reservations or markers are left in {part.keys[0]}")
            self._compare(part, seen, None)
        for breach in (breach for history in self.histories.values() for breach in history.breaches()):
            self.faults.append(f"P1: {breach}")

    def _settle(
        self,
        reservation: Reservation,
        part: Layout,
        used: Sequence[int],
        *,
        verb: str = "settle",
        first: bool = True,
    ) -> Answer:
        now, ends = self._clock.now, reservation.ends
        return self._ledger.settle(now, reservation.rid, part, used, ends=ends, verb=verb, first=first)

    def _close(self, reservation: Reservation, index: int, used: int, status: str) -> None:
        now, history, share = self._clock.now, reservation.member.histories[index], reservation.shares[index]
        if status == "settled" and reservation.is_lost:
            history.redo(share)
        if status == "corrected" and reservation.undo and not reservation.is_lost:
            history.undo(share, now)
        if status == "forgotten":
            history.close(share, now)
        else:
            history.settle(share, used, now)

    def _said(self, call: str, answer: Answer, *expected: str) -> str:
        self.said[f"{call} {answer.status}"] += 1
        if answer.status not in expected:
            self.faults.append(f"{call} at {self._clock.now}: {answer.status}")
        return answer.status

    def _compare(self, part: Layout, answer: Answer, granted: Sequence[int] | None) -> None:
        """Hold what the ledger says is charged against the histories, `granted` being part of it."""
        now = self._clock.now
        for index, (claim, charged) in enumerate(zip(part.claims, answer.charged, strict=True)):
            policy, history = claim.policy, self.histories[claim.subject, claim.policy.account]
            if granted and policy.enforce and charged > policy.capacity:
                self.faults.append(f"{policy.name} at {now}: granted, with {charged} of {policy.capacity}")
            if self._doubtful[claim.subject]:
                continue
            expected = history.standing(now)
            self.compared += 1
            self.above += charged > expected
            if not history.agrees(charged, now):
                self.faults.append(f"{policy.name} at {now}: {charged} charged, by history {expected}")
            if charged == (granted[index] if granted else 0):
                history.began_empty(bool(granted))
