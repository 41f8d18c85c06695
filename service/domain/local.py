"""Local: what a worker decides by itself while the ledger is away, by its share of every limit."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.domain.account import NEVER, Account, Algorithm
from service.domain.policy import UNIT, Claim, Count, OnLedgerFailure, Policy, Verdict
from service.domain.usage import Usage

MOST = 10_000  # accounts a worker keeps
AGAIN = 5_000  # ms after which the ledger may be back, for what fits into no share


def without_ledger(policy: Policy) -> OnLedgerFailure:
    """What becomes of its requests while the ledger is away; what is not enforced refuses nothing."""
    mode = policy.on_ledger_failure
    return OnLedgerFailure.ALLOW if mode is OnLedgerFailure.REFUSE and not policy.enforce else mode


def needing_ledger(claims: Iterable[Claim]) -> Claim | None:
    """The first claim that lets nothing pass without the ledger."""
    refused = (one for one in claims if without_ledger(one.policy) is OnLedgerFailure.REFUSE)
    return next(refused, None)


def share(policy: Policy, workers: int) -> tuple[int, int]:
    """A worker's part of a policy's limit and capacity, in the ledger's units, rounded down but never 0.

    The shares of all workers are never more than the limit, with one exception: where requests are counted
    each worker lets at least one pass, so that with more workers than the limit they may be as many.
    """
    least = UNIT if policy.count in (Count.REQUESTS, Count.CONCURRENT) else 1
    return max(least, policy.allowed // workers), max(least, policy.capacity // workers)


def window_at(policy: Policy, now: int) -> tuple[int, int]:
    """When the window that now lies in began, and how long it is, in ms; 0 where nothing begins."""
    if policy.calendar:
        start, end, _ = policy.calendar.boundaries(now)
        return start, end - start
    windows = policy.algorithm in (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW)
    return (now - now % policy.window if windows else 0), policy.window


def outlived(policy: Policy, at: int, now: int) -> bool:
    """Whether an account has forgotten by now what it was charged then, having been within its capacity."""
    start, window = window_at(policy, now)
    match policy.algorithm:
        case Algorithm.LEAKY_BUCKET:
            return (now - at) * policy.allowed >= policy.capacity * window
        case Algorithm.SLIDING_WINDOW:
            return at < start - window
        case Algorithm.FIXED_WINDOW:
            return at < start
    return False


@dataclass(slots=True)
class _Held:
    """An account, its share of the capacity, and how many requests charged with it are open."""

    account: Account
    capacity: int = 0
    open: int = 0


class Shares:
    """The accounts of one worker for the time without a ledger; `most` of them, those last asked for.

    An account that many others have pushed out begins anew. So who can make as many subjects as there is
    room for gets his share again: a policy per credential, or for everyone together, bounds that, as its
    account is asked for by each of those requests, and stays.

    What they hold is as of this worker alone: what the ledger charged before it went away is not in it, nor
    what others let pass. When the ledger is back it decides again, and is told what was used meanwhile.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._open: dict[str, list[tuple[Claim, _Held, int]]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def reserve(self, id: str, claims: Sequence[Claim], now: int, workers: int) -> Verdict:
        """Charge the claims of a request, or none of them, each within a share of so many workers.

        Now is in ms. A refusal says how long to wait as the ledger would; what no share has room for, but
        the ledger has, is asked to come again.
        """
        held = [self._look(claim, now, workers) for claim in claims]
        waits = [
            (_wait(one, claim, now), index)
            for index, (claim, one) in enumerate(zip(claims, held, strict=True))
            if claim.policy.enforce and one.account.standing() + claim.amount > one.capacity
        ]
        if not waits:
            self._open[id] = [self._charge(*pair, now) for pair in zip(claims, held, strict=True)]
        wait, index = max(waits, key=_longest, default=(0, 0))
        return Verdict(
            claims=tuple(claims),
            charged=tuple(one.account.standing() for one in held),
            now=now,
            refusing=claims[index] if waits else None,
            wait=wait if waits and wait != NEVER else None,
            limits={index: (one.account.limit, one.capacity) for index, one in enumerate(held)},
        )

    def settle(self, id: str, usage: Usage, now: int) -> None:
        """Replace what was charged by what was used, as if it had been known; once."""
        for claim, held, at in self._open.pop(id, ()):
            self._correct(claim, held, at, claim.settled(usage), now)

    def release(self, id: str, now: int) -> None:
        """Give everything back."""
        for claim, held, at in self._open.pop(id, ()):
            self._correct(claim, held, at, 0, now)

    def _look(self, claim: Claim, now: int, workers: int) -> _Held:
        """The claim's account as of now, under its present share; a new one is kept once it is charged."""
        policy, key = claim.policy, (claim.subject, claim.policy.account)
        limit, capacity = share(policy, workers)
        start, window = window_at(policy, now)
        held = self._held.get(key)
        if held is None:
            held = _Held(Account(policy.algorithm, limit, window, now, start=start))
        else:
            self._held.move_to_end(key)
            held.account.roll(now, start, window)
        held.account.limit, held.capacity = limit, capacity
        return held

    def _charge(self, claim: Claim, held: _Held, now: int) -> tuple[Claim, _Held, int]:
        at = held.account.charge(claim.amount, now, remember=held.open > 0)
        held.open += 1
        self._held[claim.subject, claim.policy.account] = held
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return claim, held, at

    def _correct(self, claim: Claim, held: _Held, at: int, amount: int, now: int) -> None:
        held.open -= 1
        held.account.roll(now, *window_at(claim.policy, now))
        if amount > claim.amount:
            held.account.charge(amount - claim.amount, now, remember=held.open > 0)
        else:
            held.account.give_back(claim.amount - amount, at)


def _wait(held: _Held, claim: Claim, now: int) -> int:
    wait = held.account.waiting(claim.amount, held.capacity, now)
    return AGAIN if wait == NEVER and claim.amount <= claim.policy.capacity else wait


def _longest(wait: tuple[int, int]) -> float:
    return float("inf") if wait[0] == NEVER else wait[0]
