"""Model: the first oracle. The scripts in plain Python, step by step, down to the bytes they store."""

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.domain import account as arithmetic
from service.domain.account import NEVER, Account, Algorithm
from service.domain.policy import Policy
from tests.lua.calls import Part
from tests.lua.history import History, Spent, Windows, windows_of

MARKER = 600_000
SLACK = 60_000
EXTRAS = 4

Boundaries = Callable[[Policy, int], tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Charge:
    """What a record says of one charge, and what the history knows of it."""

    name: str
    amount: int
    at: int
    spent: tuple[Spent, ...]

    def text(self) -> bytes:
        return struct.pack(">ddB", self.amount, self.at, len(self.name)) + self.name.encode()


@dataclass(frozen=True, slots=True)
class Record:
    """A reservation or a marker."""

    stop: int
    undo: int
    charges: tuple[Charge, ...] = ()

    def text(self) -> bytes:
        return struct.pack(">dB", self.stop, self.undo) + b"".join(charge.text() for charge in self.charges)


@dataclass(slots=True)
class Stored:
    """An account as it is stored, its kind as the scripts number it, and all that happened to it."""

    kind: int
    account: Account
    history: History

    def text(self) -> bytes:
        one = self.account
        numbers = (one.charged, one.time, one.limit, one.window, one.start, one.before)
        lows = (struct.pack(">dd", *low) for low in one.lows)
        return struct.pack(">Bdddddd", self.kind, *numbers) + b"".join(lows)

    def lasts(self) -> int:
        """Until when its key must live."""
        one = self.account
        match one.algorithm:
            case Algorithm.LEAKY_BUCKET:
                return math.ceil(one.time + float(one.charged) * one.window / one.limit)
            case Algorithm.SLIDING_WINDOW:
                return one.end + one.window
            case Algorithm.FIXED_WINDOW:
                return one.end
        return 0


@dataclass(slots=True)
class Subject:
    """One hash."""

    stored: dict[str, Stored] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    markers: dict[str, Record] = field(default_factory=dict)
    rules: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    due: int = 0
    expires: int = 0
    ruled: int = 0
    lives: int = 0  # ms that its key was last given to live; 0: there is none

    @property
    def entries(self) -> int:
        return len(self.records) + len(self.markers)

    def fields(self) -> dict[bytes, bytes]:
        if not self.lives:
            return {}
        hint = struct.pack(">dddd", self.due, self.entries, self.expires, self.ruled)
        fields = {b"~": hint + b"0"}
        fields |= {name.encode(): one.text() for name, one in self.stored.items()}
        fields |= {b"~" + rid.encode(): record.text() for rid, record in self.records.items()}
        fields |= {b"!" + rid.encode(): record.text() for rid, record in self.markers.items()}
        fields |= {b"=" + name.encode(): struct.pack(">ddd", *rule) for name, rule in self.rules.items()}
        return fields

    def live(self, expires: int, now: int) -> None:
        self.expires = expires
        self.lives = max(1, expires - now)


class Draft:
    """A subject in the course of one call: what the call does to it counts once it is saved."""

    def __init__(self, subject: Subject, now: int) -> None:
        self.subject, self.now = subject, now
        self.stored: dict[str, Stored] = {}
        self.records, self.markers = dict(subject.records), dict(subject.markers)
        self.due = subject.due
        self.need = 0
        self.ended = 0
        self.changed = False
        self.later: list[Callable[[], object]] = []  # what the histories hear when it is saved

    @property
    def entries(self) -> int:
        return len(self.records) + len(self.markers)

    def load(self, name: str, start: int | None, window: int) -> Account | None:
        """The account that is stored there, brought to now."""
        if name in self.stored:
            return self.stored[name].account
        kept = self.subject.stored.get(name)
        if kept is None:
            return None
        one = replace(kept.account, lows=list(kept.account.lows))
        self.stored[name] = replace(kept, account=one)
        seen = one.time
        if one.algorithm in (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW) and kept.kind != 4:
            start, window = self.now - self.now % one.window, one.window
        one.roll(self.now, start, window)
        if one.time < seen:
            self.changed = True
            self.later += [kept.history.doubt, partial(kept.history.note, "look", seen)]
            self.later.append(partial(kept.history.note, "back", one.time))
        return one

    def open(self, policy: Policy, start: int, window: int, windows: Windows) -> Account:
        """The account that is stored there, brought to now; else a fresh one."""
        one = self.load(policy.account, start, window)
        if one is None:
            one = Account(policy.algorithm, policy.allowed, window, self.now, start)
            history = History(policy.algorithm, windows, self.now, policy.allowed, window)
            self.stored[policy.account] = Stored(policy.kind, one, history)
        return one

    def adopt(self, name: str, limit: int) -> None:
        one, history = self.stored[name].account, self.stored[name].history
        one.limit = limit
        self.later.append(partial(history.note, "limit", max(self.now, one.time), limit))

    def charge(self, name: str, amount: int, *, remember: bool) -> Charge:
        one, history = self.stored[name].account, self.stored[name].history
        full = remember and len(one.lows) >= arithmetic.MOST_LOWS
        at = one.charge(amount, self.now, remember=remember)
        spent = Spent(amount)
        self.later.append(partial(history.note, "charge", at, spent))
        if full:
            self.later.append(history.doubt)
        return Charge(name, amount, at, (spent,))

    def give_back(self, charge: Charge, amount: int) -> None:
        self.stored[charge.name].account.give_back(amount, charge.at)
        self.later.append(partial(_learn, charge.spent, amount))

    def correct(self, record: Record, name: str, used: int) -> None:
        """Make what a record charged to an account add up to what was used."""
        charges = [charge for charge in record.charges if charge.name == name]
        over = sum(charge.amount for charge in charges) - used
        if charges and over < 0:
            self.charge(name, -over, remember=self.entries > 0)
        for charge in reversed(charges):
            back = max(0, min(over, charge.amount))
            if back:
                self.give_back(charge, back)
                over -= back

    def sweep(self, mine: str) -> None:
        if self.due == 0 or self.now < self.due:
            return
        earliest: float = math.inf
        for rid, marker in list(self.markers.items()):
            if rid != mine and marker.stop >= self.now:
                earliest = min(earliest, marker.stop)
            elif rid != mine:
                del self.markers[rid]
        for rid, record in list(self.records.items()):
            if rid != mine and record.stop > self.now:
                earliest = min(earliest, record.stop)
            elif rid != mine:
                self.lose(rid, self.records.pop(rid))
        self.due = int(max(self.now + 1000, min(earliest, self.now + MARKER)))
        self.changed = True

    def lose(self, rid: str, record: Record) -> None:
        left = []
        for charge in record.charges:
            one = self.load(charge.name, None, 0)
            assert one is not None
            if record.undo or one.algorithm is Algorithm.CONCURRENCY:
                self.give_back(charge, charge.amount)
                charge = replace(charge, amount=0)
            left.append(charge)
        self.ended += 1
        self.put_marker(rid, Record(self.now + MARKER, record.undo, tuple(left)))

    def put_record(self, rid: str, record: Record) -> None:
        self.records[rid] = record
        self._lasts(record.stop, record.stop + MARKER)

    def put_marker(self, rid: str, record: Record) -> None:
        self.markers[rid] = record
        self._lasts(record.stop, record.stop)

    def _lasts(self, stop: int, need: int) -> None:
        self.need = max(self.need, need)
        if self.due == 0 or stop < self.due:
            self.due = stop

    def save(self) -> None:
        subject = self.subject
        subject.stored.update(self.stored)
        subject.records, subject.markers = self.records, self.markers
        subject.due = self.due if self.entries else 0
        need = max([self.need, *(one.lasts() for one in self.stored.values())])
        if need > subject.expires:
            subject.live(need + SLACK, self.now)
        for hear in self.later:
            hear()


def _learn(spent: Iterable[Spent], back: int) -> None:
    """The history learns what was really used."""
    for one in reversed(list(spent)):
        less = min(back, one.amount)
        one.amount -= less
        back -= less


class Ledger:
    """The scripts over named subjects; `boundaries` are those of a calendar's policy around a moment.

    `around` is where a caller believed the clock to be. Answers are as the scripts give them.
    """

    def __init__(self, boundaries: Boundaries) -> None:
        self.boundaries = boundaries
        self.subjects: dict[str, Subject] = {}

    def subject(self, key: str) -> Subject:
        return self.subjects.setdefault(key, Subject())

    def _open(self, now: int, around: int, parts: Sequence[Part]) -> dict[str, Draft] | None:
        drafts: dict[str, Draft] = {}
        for part in parts:
            policy = part.policy
            if part.subject not in drafts:
                drafts[part.subject] = Draft(self.subject(part.subject), now)
            start, window = 0, policy.window
            windows = windows_of(policy.algorithm, window)
            if policy.kind == 4:
                one, two, three = self.boundaries(policy, around)
                if not one <= now < three:
                    return None
                start, window = (one, two - one) if now < two else (two, three - two)
                windows = partial(self._window, policy)
            elif policy.algorithm in (Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW):
                start = now - now % window
            drafts[part.subject].open(policy, start, window, windows)
        return drafts

    def _window(self, policy: Policy, at: int) -> tuple[int, int]:
        return self.boundaries(policy, at)[:2]

    def _obey(
        self, drafts: dict[str, Draft], parts: Sequence[Part], now: int
    ) -> tuple[int, int, dict[int, tuple[int, int]]]:
        """Whose subject is blocked and until when; the limits and capacities in place of others."""
        index, blocked, over = 0, 0, {}
        for number, part in enumerate(parts, 1):
            subject = drafts[part.subject].subject
            if subject.ruled <= now:
                continue
            stop, _, _ = subject.rules.get("", (0, 0, 0))
            if stop > now and stop > blocked:
                index, blocked = number, stop
            until, limit, capacity = subject.rules.get(part.policy.account, (0, 0, 0))
            if until > now:
                over[number] = limit, capacity
        return index, blocked, over

    @staticmethod
    def _answer(
        status: str,
        drafts: dict[str, Draft],
        parts: Sequence[Part],
        index: int = 0,
        wait: int = 0,
        over: dict[int, tuple[int, int]] | None = None,
    ) -> list[object]:
        now = next(iter(drafts.values())).now
        charged = [drafts[part.subject].stored[part.policy.account].account.standing() for part in parts]
        rules = [number for index, pair in (over or {}).items() for number in (index, *pair)]
        return [status, now, _ended(drafts), index, wait, *charged, *rules]

    def reserve(
        self,
        now: int,
        not_after: int,
        rid: str,
        lease: int,
        undo: int,
        *,
        around: int,
        parts: Sequence[Part],
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._open(now, around, parts)
        if drafts is None:
            return ["stale", now]
        if any(rid in draft.markers for draft in drafts.values()):
            return ["aborted", now]
        index, wait, over = self._obey(drafts, parts, now)
        if rid in drafts[parts[0].subject].records:
            return self._answer("granted", drafts, parts, over=over)
        for draft in drafts.values():
            draft.sweep(rid)
        status = "blocked" if index else "granted"
        if not index:
            index, wait = self._refusing(drafts, parts, over, now)
            status = "refused" if index else "granted"
        if index:
            for draft in drafts.values():
                if draft.changed:
                    draft.save()
            return self._answer(status, drafts, parts, index, wait, over)
        for key, draft in drafts.items():
            mine = [part for part in parts if part.subject == key]
            remember = draft.entries > 0
            charges = [draft.charge(part.policy.account, part.amount, remember=remember) for part in mine]
            draft.put_record(rid, Record(now + lease, undo, tuple(charges)))
            draft.save()
        return self._answer("granted", drafts, parts, over=over)

    @staticmethod
    def _refusing(
        drafts: dict[str, Draft], parts: Sequence[Part], over: dict[int, tuple[int, int]], now: int
    ) -> tuple[int, int]:
        """Which policy refuses, and for how long."""
        refusing, wait = 0, 0
        for index, part in enumerate(parts, 1):
            limit, capacity = over.get(index, (part.policy.allowed, part.policy.capacity))
            drafts[part.subject].adopt(part.policy.account, limit)
            one = drafts[part.subject].stored[part.policy.account].account
            if part.policy.enforce and one.standing() + part.amount > capacity:
                its = one.waiting(part.amount, capacity, now)
                if not refusing or (wait != NEVER and (its == NEVER or its > wait)):
                    refusing, wait = index, its
        return refusing, wait

    def settle(
        self,
        now: int,
        not_after: int,
        rid: str,
        verb: str,
        first: int,
        mark: int,
        forget: int,
        *,
        around: int,
        parts: Sequence[Part],
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._open(now, around, parts)
        if drafts is None:
            return ["stale", now]
        status = ""
        for key, draft in drafts.items():
            draft.sweep(rid)
            record, marker = draft.records.pop(rid, None), draft.markers.get(rid)
            used = {
                part.policy.account: 0 if verb == "release" else part.amount
                for part in parts
                if part.subject == key
            }
            status = _status(record, marker, verb, first, now, forget)
            for name in used:
                if status in ("settled", "corrected"):
                    draft.correct(record or marker or Record(0, 0), name, used[name])
            marks = mark and not (marker and not record)
            if status == "corrected" and marker:
                draft.put_marker(rid, Record(max(marker.stop, not_after), 0))
            elif marks:
                draft.put_marker(rid, Record(not_after, 0))
            if status == "charged":
                for name, amount in used.items():
                    draft.charge(name, amount, remember=draft.entries > 0)
            if draft.changed or marks or status not in ("again", "forgotten"):
                draft.save()
        return [status, now, _ended(drafts)]

    def renew(
        self,
        now: int,
        not_after: int,
        rid: str,
        lease: int,
        undo: int,
        *,
        around: int,
        parts: Sequence[Part],
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._open(now, around, parts)
        if drafts is None:
            return ["stale", now]
        status = "renewed"
        for key, draft in drafts.items():
            if rid not in draft.records:
                status = "gone"
                continue
            charges = draft.records[rid].charges
            for part in parts:
                if part.subject == key:
                    charges = self._charge_excess(draft, charges, part)
            draft.sweep(rid)
            draft.put_record(rid, Record(now + lease, undo, charges))
            draft.save()
        return [status, now, _ended(drafts)]

    @staticmethod
    def _charge_excess(draft: Draft, charges: tuple[Charge, ...], part: Part) -> tuple[Charge, ...]:
        name = part.policy.account
        mine = [index for index, charge in enumerate(charges) if charge.name == name]
        excess = part.amount - sum(charges[index].amount for index in mine)
        if not mine or excess <= 0:
            return charges
        new = draft.charge(name, excess, remember=True)
        if len(mine) < EXTRAS:
            return (*charges, new)
        draft.later.append(draft.stored[name].history.doubt)
        last = charges[mine[-1]]
        both = replace(last, amount=last.amount + excess, spent=last.spent + new.spent)
        return (*charges[: mine[-1]], both, *charges[mine[-1] + 1 :])

    def reset(self, now: int, *, around: int, parts: Sequence[Part]) -> list[object]:
        drafts = self._open(now, around, parts)
        if drafts is None:
            return ["stale", now]
        draft = drafts[parts[0].subject]
        for hear in draft.later:
            hear()
        for name, new in draft.stored.items():
            if name in draft.subject.stored and new.account.algorithm is not Algorithm.CONCURRENCY:
                anew = max(now, new.account.time) + 1
                new.account.reset(now)
                new.history.note("reset", new.account.time)
                if new.account.time < anew:
                    new.history.doubt()
                draft.subject.stored[name] = new
        return self._answer("reset", drafts, parts)

    def peek(self, now: int, *, around: int, parts: Sequence[Part]) -> list[object]:
        drafts = self._open(now, around, parts)
        if drafts is None:
            return ["stale", now]
        _, blocked, over = self._obey(drafts, parts, now)
        entries = drafts[parts[0].subject].entries
        return self._answer("seen", drafts, parts, entries, blocked, over)

    def rule(self, now: int, key: str, name: str, until: int, limit: int, capacity: int) -> list[object]:
        subject = self.subject(key)
        if until == 0:
            subject.rules.pop(name, None)
            return ["ruled", now]
        subject.rules[name] = until, limit, capacity
        subject.ruled = max(subject.ruled, until)
        if until > subject.expires:
            subject.live(until + SLACK, now)
        return ["ruled", now]


def _ended(drafts: dict[str, Draft]) -> int:
    return sum(draft.ended for draft in drafts.values())


def _status(
    record: Record | None, marker: Record | None, verb: str, first: int, now: int, forget: int
) -> str:
    if record:
        return "settled"
    if marker:
        return "corrected" if marker.charges else "again"
    if verb == "release" or not first:
        return "again"
    return "charged" if now <= forget else "forgotten"
