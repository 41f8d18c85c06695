"""Desk: where an operator's words become a subject of the ledger, and what is done to it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from service.adapters.ledger.fields import Rule
from service.adapters.ledger.subjects import Seen, Subjects
from service.domain.account import Algorithm
from service.domain.marks import near
from service.domain.policy import EXACT, MOST, MOST_COST, Count, Policy
from service.domain.subject import subject_key
from service.quota.book import Book, named
from service.quota.misasked import Misasked
from service.quota.subject import Subject, digest_in, key_of, values_of


class Desk:
    """Does what is asked, to the subject that is meant. Raises Misasked and LedgerAway.

    `plans` are those of all credentials, empty for none, where they are known; `digest` is the gateways' own.
    """

    def __init__(
        self, book: Book, subjects: Subjects, plans: Mapping[str, str] | None, digest: Callable[[str], str]
    ) -> None:
        self._book = book
        self._subjects = subjects
        self._plans = plans
        self._digest = digest

    async def find(self, words: Sequence[str], plan: str | None) -> Subject:
        """The subject that is meant: by a digest, which must be known to the ledger, or by its dimensions."""
        if key := key_of(words[0]):
            return await self._known(key, plan)
        values = values_of(words, self._book)
        if plan is None:
            plan = self._plan(values.get("credential"))
        policies = self._book.of(values, plan)
        return Subject(subject_key(policies[0].per, values, self._digest), policies, plan)

    async def seen(self, subject: Subject) -> tuple[Seen, Mapping[str, Rule]]:
        """How it stands, and an operator's rules by the names of the accounts."""
        seen = await self._subjects.peek(subject.claims())
        written = await self._subjects.written(subject.key, [policy.account for policy in subject.policies])
        return seen, written.rules

    async def allow(self, subject: Subject, name: str, limit: str, lasts: int) -> int:
        """Put another limit in place of a policy's own for so many ms; returns until when."""
        policies = named(name, subject.policies)
        changed = [replace(policy, limit=_limit(policy, limit)) for policy in policies]
        until = await self._now(subject) + lasts
        for policy in changed:
            await self._subjects.allow(
                subject.key, policy.account, until, limit=policy.allowed, capacity=policy.capacity
            )
        return until

    async def allow_own(self, subject: Subject, name: str) -> None:
        """Take that back."""
        for policy in named(name, subject.policies):
            await self._subjects.allow(subject.key, policy.account, 0, limit=0, capacity=0)

    async def reset(self, subject: Subject, names: Sequence[str]) -> list[str]:
        """Make what is charged zero, with these policies or with all; returns which."""
        chosen = [policy for name in dict.fromkeys(names) for policy in named(name, subject.policies)]
        for policy in chosen:
            if policy.algorithm is Algorithm.CONCURRENCY:
                raise Misasked(f"POLICY: expected none that counts {policy.count}, as {policy.name} does")
        chosen = chosen or [one for one in subject.policies if one.algorithm is not Algorithm.CONCURRENCY]
        if chosen:
            await self._subjects.reset(replace(subject, policies=tuple(chosen)).claims())
        return [policy.name for policy in chosen]

    async def block(self, subject: Subject, lasts: int) -> int:
        """Let nothing of it pass for so many ms; returns until when."""
        until = await self._now(subject) + lasts
        await self._subjects.block(subject.key, until)
        return until

    async def unblock(self, subject: Subject) -> None:
        """Let it pass again."""
        await self._subjects.block(subject.key, 0)

    def _plan(self, credential: str | None) -> str:
        """The plan of its callers. Raises Misasked where no key has this id, lest nobody is blocked."""
        if credential is None:
            return ""
        if self._plans is None:
            if len(self._book.plans) > 1:
                raise Misasked("WEIR_KEYS_FILE: expected, as the gateways have it, or --plan")
            return ""
        if credential not in self._plans:  # it is not repeated, as it may be a key
            raise Misasked(
                "SUBJECT: expected the id of a key of the keys file after credential="
                f"{near(credential, self._plans)}; one that was there once goes with --plan",
                unknown=True,
            )
        return self._plans[credential]

    async def _now(self, subject: Subject) -> int:
        """The ledger's time in ms."""
        return (await self._subjects.peek(subject.claims())).now

    async def _known(self, key: str, plan: str | None) -> Subject:
        """The subject of a digest, with the policies that it has accounts of."""
        written = await self._subjects.written(key, self._book.accounts(plan))
        policies = [self._book.policy(name, one, plan) for name, one in written.accounts.items()]
        if not policies:
            raise Misasked(
                f"SUBJECT: expected a digest that the ledger has accounts of, not {digest_in(key)}",
                unknown=True,
            )
        return Subject(key, tuple(policies), plan)


def _limit(policy: Policy, text: str) -> int | Decimal:
    """A limit as the definition would have it, with the policy's own burst."""
    costs, number = policy.count is Count.COST, r"[0-9]{1,13}"
    most = min(MOST_COST if costs else MOST, (EXACT - 1) * 100 // (100 + policy.burst) // policy.unit)
    if re.fullmatch(rf"{number}(\.[0-9]{{1,6}})?" if costs else number, text) and 0 < Decimal(text) <= most:
        return Decimal(text) if costs else int(text)
    kind = "number of at most 6 decimals" if costs else "whole number"
    raise Misasked(f"LIMIT: expected a {kind} above 0 and up to {most}, or default, not {text!r}")
