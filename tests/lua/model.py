"""Two oracles for the scripts: a subject written in plain Python, and the history replayed."""

import copy
import math
from dataclasses import dataclass, field

from service.domain import account as arithmetic
from service.domain.account import NEVER, Account, Algorithm
from service.domain.policy import Policy

MARKER = 600_000
SLACK = 60_000


@dataclass
class Charge:
    name: str
    amount: int
    at: int


@dataclass
class Record:
    stop: int
    lost: str
    charges: list[Charge] = field(default_factory=list)

    def of(self, name: str) -> list[Charge]:
        return [charge for charge in self.charges if charge.name == name]

    def text(self) -> str:
        parts = [f"{self.stop} {self.lost}"]
        return " ".join(parts + [f"{one.name} {one.amount} {one.at}" for one in self.charges])


@dataclass
class Spent:
    """One charge in the history of an account; `amount` becomes what was truly used."""

    time: int
    amount: int


@dataclass
class History:
    """All that happened to an account, replayed with the true usages by `level`."""

    algorithm: Algorithm
    events: list[tuple[str, int, object]] = field(default_factory=list)
    exact: bool = True  # False once the list of lows was cut, or the clock fell back too far

    def level(self, now: int) -> int:
        level, time, limit, window = 0, now, 1, 1
        for kind, at, what in [*self.events, ("look", now, None)]:
            if kind == "back" or (kind == "limit" and limit == 1):
                time = at
            elif self.algorithm is Algorithm.LEAKY_BUCKET and at > time:
                level = max(0, level - arithmetic.drained(limit, window, since=time, until=at))
                time = at
            elif self.algorithm is Algorithm.FIXED_WINDOW and at >= time - time % window + window:
                level, time = 0, at
            if kind == "charge":
                assert isinstance(what, Spent)
                level += what.amount
            elif kind == "reset":
                level, time = 0, at
            elif kind == "limit":
                assert isinstance(what, tuple)
                limit, window = what
        return level


class Subject:
    """What the scripts do to one hash, step by step."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.records: dict[str, Record] = {}
        self.markers: dict[str, Record] = {}
        self.due = 0
        self.expires = 0
        self.exists = False
        self.histories: dict[str, History] = {}
        self.spent: dict[tuple[str, str], list[Spent]] = {}
        self.loaded: set[str] = set()  # by the call under way: what a save would write
        self.need = 0  # by the call under way: until when the key must live
        self.lost = 0  # by the call under way: leases found ended
        self.fell = False  # by the call under way: an account went back with the clock

    @property
    def entries(self) -> int:
        return len(self.records) + len(self.markers)

    def fields(self) -> dict[str, str]:
        if not self.exists:
            return {}
        fields = {"~": f"{self.due} {self.entries} {self.expires} 0"}
        for name, one in self.accounts.items():
            lows = [str(number) for pair in one.lows for number in pair]
            numbers = [one.limit, one.window, one.charged, one.time]
            fields[name] = " ".join([str(one.algorithm), *map(str, numbers), *lows])
        fields |= {f"~{rid}": record.text() for rid, record in self.records.items()}
        fields |= {f"!{rid}": record.text() for rid, record in self.markers.items()}
        return fields

    def present(self, policy: Policy, now: int) -> Account:
        one = self.accounts.get(policy.account)
        if one is None:
            limit = policy.limit * 1000
            one = Account(policy.algorithm, limit, policy.window, now)
            self.histories[policy.account] = History(policy.algorithm)
            self.note(policy.account, "limit", one.time, (limit, policy.window))
            self.accounts[policy.account] = one
            self.loaded.add(policy.account)
            return one
        if (one.limit, one.window) != (policy.limit * 1000, policy.window):
            if one.algorithm is Algorithm.FIXED_WINDOW and one.window != policy.window:
                self.histories[policy.account].exact = False
            one.adopt(limit=policy.limit * 1000, window=policy.window)
            self.note(policy.account, "limit", max(now, one.time), (one.limit, one.window))
        return one

    def load(self, name: str, now: int) -> Account | None:
        if name not in self.accounts or name in self.loaded:
            return self.accounts.get(name)
        self.loaded.add(name)
        one = self.accounts[name]
        back, seen = one.time - now > max(arithmetic.GRACE, one.window), one.time
        one.roll(now)
        if back and one.algorithm is not Algorithm.CONCURRENCY:
            self.histories[name].exact = False
            self.fell = True
            self.note(name, "look", seen, None)
            self.note(name, "back", one.time, None)
        return one

    def note(self, name: str, kind: str, at: int, what: object) -> None:
        self.histories[name].events.append((kind, at, what))

    def charge(self, rid: str, name: str, amount: int, now: int, *, remember: bool) -> int:
        one = self.accounts[name]
        at = one.charge(amount, now, remember=remember)
        if len(one.lows) >= arithmetic.MOST_LOWS:
            self.histories[name].exact = False
        spent = Spent(at, amount)
        self.note(name, "charge", at, spent)
        self.spent.setdefault((rid, name), []).append(spent)
        return at

    def correct(self, rid: str, record: Record, name: str, used: int, now: int) -> None:
        one = self.load(name, now)
        if one is None:
            return
        over = sum(charge.amount for charge in record.of(name)) - used
        if over < 0:
            self.charge(rid, name, -over, now, remember=self.entries > 0)
        for charge in reversed(record.of(name)):
            back = max(0, min(over, charge.amount))
            if back:
                one.give_back(back, charge.at)
                self._truth(rid, name, charge.at, back)
                over -= back

    def _truth(self, rid: str, name: str, at: int, back: int) -> None:
        """The history learns what was really used."""
        for spent in reversed(self.spent.get((rid, name), [])):
            if spent.time == at:
                less = min(back, spent.amount)
                spent.amount -= less
                back -= less

    def sweep(self, mine: str, now: int) -> bool:
        if self.due == 0 or now < self.due:
            return False
        earliest: float = math.inf
        for rid, record in list(self.records.items()):
            if rid == mine:
                continue
            if record.stop > now:
                earliest = min(earliest, record.stop)
                continue
            for charge in record.charges:
                one = self.load(charge.name, now)
                assert one is not None
                if record.lost == "u" or one.algorithm is Algorithm.CONCURRENCY:
                    one.give_back(charge.amount, charge.at)
                    self._truth(rid, charge.name, charge.at, charge.amount)
                    charge.amount = 0
            self.lost += 1
            record.stop = self.need = now + MARKER
            self.markers[rid] = self.records.pop(rid)
        for rid, marker in list(self.markers.items()):
            if rid == mine or marker.stop == now + MARKER:
                continue
            if marker.stop >= now:
                earliest = min(earliest, marker.stop)
            else:
                del self.markers[rid]
        self.due = int(max(now + 1000, min(earliest, now + MARKER)))
        return True

    def put(self, stop: int) -> None:
        if self.due == 0 or stop < self.due:
            self.due = stop

    def save(self, need: int, now: int) -> None:
        self.exists = True
        need = max(need, self.need)
        if not self.entries:
            self.due = 0
        for name in self.loaded:
            one = self.accounts[name]
            if one.algorithm is Algorithm.FIXED_WINDOW:
                need = max(need, one.end)
            elif one.algorithm is Algorithm.LEAKY_BUCKET:
                need = max(need, one.time + math.ceil(float(one.charged) * one.window / one.limit))
        if need > self.expires:
            self.expires = need + SLACK


@dataclass(frozen=True)
class Part:
    """One policy of a call: whose, how much."""

    subject: str
    policy: Policy
    amount: int


class Ledger:
    """The scripts, in Python, over named subjects. A call changes nothing that the scripts do not write."""

    def __init__(self) -> None:
        self.subjects: dict[str, Subject] = {}

    def _drafts(self, parts: list[Part], now: int) -> dict[str, Subject]:
        drafts: dict[str, Subject] = {}
        for part in parts:
            if part.subject not in drafts:
                drafts[part.subject] = copy.deepcopy(self.subjects.get(part.subject) or Subject())
                drafts[part.subject].loaded, drafts[part.subject].need = set(), 0
                drafts[part.subject].lost = 0
                drafts[part.subject].fell = False
            drafts[part.subject].load(part.policy.account, now)
        return drafts

    @staticmethod
    def _lost(drafts: dict[str, Subject]) -> int:
        return sum(draft.lost for draft in drafts.values())

    def _charged(self, drafts: dict[str, Subject], parts: list[Part]) -> list[int]:
        accounts = [drafts[part.subject].accounts.get(part.policy.account) for part in parts]
        return [one.charged if one else 0 for one in accounts]

    def reserve(
        self, now: int, not_after: int, rid: str, lease: int, lost: str, parts: list[Part]
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._drafts(parts, now)
        if any(rid in draft.markers for draft in drafts.values()):
            return ["aborted", now]
        if any(rid in draft.records for draft in drafts.values()):
            return ["granted", now, self._lost(drafts), 0, 0, *self._charged(drafts, parts)]
        swept = {key for key, draft in drafts.items() if draft.sweep(rid, now) or draft.fell}
        refusing, wait = 0, 0
        for index, part in enumerate(parts, 1):
            one = drafts[part.subject].present(part.policy, now)
            if part.policy.enforce and one.charged + part.amount > part.policy.capacity:
                its = one.waiting(part.amount, part.policy.capacity, now)
                if not refusing or (wait != NEVER and (its == NEVER or its > wait)):
                    refusing, wait = index, its
        if refusing:
            for key in swept:
                drafts[key].save(0, now)
                self.subjects[key] = drafts[key]
            return ["refused", now, self._lost(drafts), refusing, wait, *self._charged(drafts, parts)]
        records = {key: Record(now + lease, lost) for key in drafts}
        for part in parts:
            draft, name = drafts[part.subject], part.policy.account
            at = draft.charge(rid, name, part.amount, now, remember=draft.entries > 0)
            records[part.subject].charges.append(Charge(name, part.amount, at))
        for key, draft in drafts.items():
            draft.records[rid] = records[key]
            draft.put(now + lease)
            draft.save(now + lease + MARKER, now)
            self.subjects[key] = draft
        return ["granted", now, self._lost(drafts), 0, 0, *self._charged(drafts, parts)]

    def settle(
        self,
        now: int,
        not_after: int,
        rid: str,
        verb: str,
        parts: list[Part],
        *,
        first: bool,
        mark: bool,
        forget: int,
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._drafts(parts, now)
        status = ""
        for key, draft in drafts.items():
            swept = draft.sweep(rid, now) or draft.fell
            mine = [part for part in parts if part.subject == key]
            need = 0
            record = draft.records.pop(rid, None)
            marker = draft.markers.get(rid)
            if record:
                status = "settled"
            elif marker:
                status = "corrected" if marker.charges else "again"
            elif verb == "release" or not first:
                status = "again"
            else:
                status = "charged" if now <= forget else "forgotten"
            before = record or (marker if marker and marker.charges else None)
            if before:
                for part in mine:
                    used = 0 if verb == "release" else part.amount
                    draft.correct(rid, before, part.policy.account, used, now)
            if status == "corrected" and marker:
                need = max(need, marker.stop)
                draft.markers[rid] = Record(max(marker.stop, not_after), "k")
                draft.put(draft.markers[rid].stop)
            elif mark and not marker:
                draft.markers[rid] = Record(not_after, "k")
                draft.put(not_after)
                need = max(need, not_after)
            if status == "charged":
                for part in mine:
                    draft.present(part.policy, now)
                    draft.charge(rid, part.policy.account, part.amount, now, remember=draft.entries > 0)
            if swept or status not in ("again", "forgotten") or (mark and not marker):
                draft.save(need, now)
                self.subjects[key] = draft
        return [status, now, self._lost(drafts), 0, 0, *self._charged(drafts, parts)]

    def renew(
        self, now: int, not_after: int, rid: str, lease: int, lost: str, parts: list[Part]
    ) -> list[object]:
        if now > not_after:
            return ["late", now]
        drafts = self._drafts(parts, now)
        status = "renewed"
        for key, draft in drafts.items():
            record = draft.records.get(rid)
            if record is None:
                status = "gone"
                continue
            record.stop, record.lost = now + lease, lost
            for part in parts:
                if part.subject == key:
                    self._renew_one(draft, rid, record, part, now)
            draft.sweep(rid, now)
            draft.put(record.stop)
            draft.save(record.stop + MARKER, now)
            self.subjects[key] = draft
        return [status, now, self._lost(drafts), 0, 0, *self._charged(drafts, parts)]

    def _renew_one(self, draft: Subject, rid: str, record: Record, part: Part, now: int) -> None:
        name = part.policy.account
        charges = record.of(name)
        excess = part.amount - sum(charge.amount for charge in charges)
        if not charges or excess <= 0:
            return
        at = draft.charge(rid, name, excess, now, remember=True)
        if len(charges) < 4:
            record.charges.append(Charge(name, excess, at))
        else:
            charges[-1].amount += excess
            draft.histories[name].exact = False

    def reset(self, now: int, parts: list[Part]) -> list[object]:
        drafts = self._drafts(parts, now)
        for key, draft in drafts.items():
            for name in [name for name in draft.loaded if name in draft.accounts]:
                one = draft.accounts[name]
                one.reset(now)
                if one.algorithm is not Algorithm.CONCURRENCY:
                    draft.note(name, "reset", one.time, None)
            if draft.exists:
                kept = self.subjects[key]
                for name in draft.loaded:
                    if draft.accounts[name].algorithm is Algorithm.CONCURRENCY:
                        draft.accounts[name] = kept.accounts[name]
                self.subjects[key] = draft
        return ["reset", now, self._lost(drafts), 0, 0, *self._charged(drafts, parts)]

    def peek(self, now: int, parts: list[Part]) -> list[object]:
        drafts = self._drafts(parts, now)
        entries = [draft.entries for draft in drafts.values()]
        return ["seen", now, self._lost(drafts), entries[0], 0, *self._charged(drafts, parts)]
