"""Memory: what the log says was decided, and what the accounts must hold if it is true."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from service.app import digester
from service.domain.policy import Claim, Policy
from service.domain.subject import subject_key
from service.domain.usage import Estimate, Usage
from tests.lua.history import History, Spent, Windows, windows_of
from tests.programs import DIGEST_KEY, Record

LATER = 2**52  # ms; some time after
Place = tuple[str, str]  # a subject's key and the name of an account


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount that counts from some moment between these two, ms of the ledger's clock."""

    amount: int
    earliest: int
    latest: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A record of the log: what was claimed, and what stood charged with each claim when it was decided."""

    record: Record
    claims: tuple[Claim, ...]

    @property
    def granted(self) -> bool:
        return "policy" not in self.record

    @property
    def now(self) -> int:
        return int(self.record["decided"])

    @property
    def refusing(self) -> Claim:
        return next(claim for claim in self.claims if claim.policy.name == self.record["policy"])

    def charged(self, claim: Claim) -> int:
        """What stood charged then, in the ledger's units."""
        in_its_unit: float = self.record["charged"][claim.policy.name]
        return round(in_its_unit * claim.policy.unit)

    def charges(self, claim: Claim, *, slack: int) -> Iterator[Charge]:
        """What it leaves in an account: what was used, as if known; what exceeds the claim, once it was.

        `slack` is in how many ms before `now` each subject was decided.
        """
        record = self.record
        used = claim.settled(Usage(**record["used"], source=record["source"]))
        if known := min(used, claim.amount):
            yield Charge(known, self.now - slack, self.now)
        if used > claim.amount:
            yield Charge(used - claim.amount, self.now - slack, LATER)


class Memory:
    """Reads a log. `policies` are those of the definition, `users` all there can be."""

    def __init__(self, policies: Sequence[tuple[Policy, str]], users: Sequence[str]) -> None:
        self._policies = policies
        self._digest = digester(DIGEST_KEY)
        self._users = {self._digest(user): user for user in users}

    def decisions(self, records: Sequence[Record]) -> list[Decision]:
        """What was decided, of all that was asked."""
        return [Decision(one, tuple(self._claims(one))) for one in records if "decided" in one]

    def _claims(self, record: Record) -> Iterator[Claim]:
        values = {
            "credential": record["credential"],
            "user": self._users[record["user"]],
            "model": record["model"],
        }
        estimate = Estimate(**record["estimate"])
        for policy, whom in self._policies:
            if fnmatchcase(values["user"], whom):
                subject = subject_key(policy.per, values, self._digest)
                yield Claim(policy, subject, policy.reserved(estimate, record["model"]), record["model"])


def remembered(decisions: Sequence[Decision], *, split: bool) -> Mapping[Place, list[Charge]]:
    """Every account that must be there, and what is charged to it.

    Where the subjects are `split` over servers, each decides at its own moment: the last of them is known,
    and that all lie within the gateway's own time.
    """
    charges: Mapping[Place, list[Charge]] = defaultdict(list)
    for one in decisions:
        if one.granted:
            slack = round(one.record["ms"]["own"]) + 1 if split else 0
            for claim in one.claims:
                charges[claim.subject, claim.policy.account].extend(one.charges(claim, slack=slack))
    return charges


def bounds(policy: Policy, charges: Sequence[Charge], now: int) -> tuple[int, int]:
    """The least and the most that may stand charged: later charges have drained less."""
    return (
        _level(policy, [(one.earliest, one.amount) for one in charges], now),
        _level(policy, [(one.latest, one.amount) for one in charges], now),
    )


def _level(policy: Policy, charges: Sequence[tuple[int, int]], now: int) -> int:
    if not charges:
        return 0
    ordered = sorted((min(at, now), amount) for at, amount in charges)
    history = History(policy.algorithm, _windows(policy), ordered[0][0], policy.allowed, policy.window)
    for at, amount in ordered:
        history.note("charge", at, Spent(amount))
    return history.level(now)


def _windows(policy: Policy) -> Windows:
    """The windows of a policy; a calendar's begin where it says."""
    calendar = policy.calendar
    if calendar:
        return lambda at: calendar.boundaries(at)[:2]
    return windows_of(policy.algorithm, policy.window)
