"""Book: the policies of a definition, for the callers of each plan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.domain.account import Account
from service.domain.api import Api
from service.domain.limits import LimitOptions, limits_by_plan
from service.domain.marks import near
from service.domain.policy import Policy
from service.quota.misasked import Misasked

EVERYONE = "everyone"  # the subject of policies that are per nobody


@dataclass(frozen=True, slots=True)
class Book:
    """The policies of each plan, the empty one being theirs who have none, in a definition."""

    api: Api
    plans: Mapping[str, tuple[Policy, ...]]

    def of(self, per: Iterable[str], plan: str) -> tuple[Policy, ...]:
        """The policies of a plan that are per just these dimensions. Raises Misasked where there is none."""
        wanted = tuple(sorted(per))
        policies = tuple(policy for policy in self._plan(plan) if policy.per == wanted)
        if not policies:
            known = ", or ".join(_named(per) for per in dict.fromkeys(one.per for one in self._plan(plan)))
            callers = f"of plan {plan}" if plan else "for callers without a plan"
            raise Misasked(
                f"SUBJECT: expected what some policy {callers} is per ({known or 'there is none'}),"
                f" not {_named(wanted)}",
                unknown=True,
            )
        return policies

    def accounts(self, plan: str | None = None) -> list[str]:
        """The names that accounts can have: of a plan's policies, or of all."""
        plans = self.plans if plan is None else {plan: self._plan(plan)}
        return list(dict.fromkeys(policy.account for policies in plans.values() for policy in policies))

    def policy(self, name: str, account: Account, plan: str | None = None) -> Policy:
        """Whose account that of this name is, where its subject's plan may not be known.

        Then it is that with the account's limit, else the first that comes.
        """
        plans = self.plans.values() if plan is None else [self._plan(plan)]
        policies = [policy for policies in plans for policy in policies if policy.account == name]
        return next((policy for policy in policies if policy.allowed == account.limit), policies[0])

    def check(self, name: str) -> None:
        """Raises Misasked where no policy has this name."""
        named(name, [policy for policies in self.plans.values() for policy in policies])

    def _plan(self, plan: str) -> tuple[Policy, ...]:
        if plan not in self.plans:
            known = ", ".join(filter(None, self.plans)) or "there is none"
            raise Misasked(
                f'--plan: expected a plan of the definition ({known}), not "{plan}"{near(plan, self.plans)}'
            )
        return self.plans[plan]


def book(api: Api) -> Book:
    """What is in a definition."""
    plans: dict[str, tuple[Policy, ...]] = {"": ()}
    for step in api.request:
        if isinstance(step.options, LimitOptions):
            for plan, limits in limits_by_plan(step.options, api.plans).items():
                plans[plan] = (*plans.get(plan, ()), *limits.policies)
    return Book(api, plans)


def named(name: str, policies: Sequence[Policy]) -> list[Policy]:
    """Those of the policies that have this name. Raises Misasked where none has."""
    known = {policy.name: policy for policy in policies}
    found = [policy for policy in policies if policy.name == name]
    if not found:
        raise Misasked(f'POLICY: expected one of {", ".join(known)}, not "{name}"{near(name, known)}')
    return found


def _named(per: Iterable[str]) -> str:
    return " ".join(f"{name}=…" for name in per) or EVERYONE
