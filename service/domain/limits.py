"""Limits: the policies and caps for the callers of one plan, made ready, and which of them fit nobody."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.caps import REST, Caps, CapsOption, caps
from service.domain.chat import Chat
from service.domain.condition import Facts
from service.domain.exchange import Exchange
from service.domain.globs import Globs
from service.domain.marks import Path
from service.domain.measures import kebab
from service.domain.plans import CAP, Fault, Surroundings
from service.domain.policies import PolicyOptions
from service.domain.policy import UNIT, Claim, Count, Policy, Reserve
from service.domain.subject import Dimensions
from service.domain.usage import Estimate


class LimitOptions(BaseModel):
    """The policies, and what to do where a request leaves something open.

    `default-completion` tokens are reserved per choice where no cap is declared, and put upstream as the cap
    with `cap-completion`. `on-lost` says what becomes of a charge whose worker died.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    policies: Annotated[tuple[PolicyOptions, ...], Field(max_length=64)]
    remaining_header: bool = False
    missing_user: Literal["share", "refuse"] = "share"
    default_completion: CapsOption = Field(default={REST: 1024})
    cap_completion: bool = False
    on_lost: Literal["charge", "release"] = "charge"

    def faults(self, around: Surroundings) -> Iterator[Fault]:
        """What in them can never come to pass where they stand."""
        return _faults(self, around)


@dataclass(frozen=True, slots=True)
class Limits:
    """What applies to the callers of a plan: its policies, in their order, and caps for who declares none."""

    policies: tuple[Policy, ...]
    caps: Caps
    _always: bool = field(init=False)  # all of them apply to every request

    def __post_init__(self) -> None:
        object.__setattr__(self, "_always", not any(policy.when for policy in self.policies))

    def applying(self, exchange: Exchange, chat: Chat) -> Sequence[Policy]:
        """The policies that apply to a request."""
        if self._always:
            return self.policies
        facts = Facts(chat.model, exchange.user or "", chat.stream, exchange.headers)
        return [policy for policy in self.policies if not policy.when or policy.when.holds(facts)]


def limits_by_plan(options: LimitOptions, plans: Mapping[str, BaseModel]) -> dict[str, Limits]:
    """What applies to the callers of each plan; the empty one is theirs who have none.

    `plans` are the step's options as they are for each plan.
    """
    anew = {plan: one for plan, one in plans.items() if isinstance(one, LimitOptions)}
    return {plan: _limits(one, plan) for plan, one in {"": options, **anew}.items()}


def _limits(options: LimitOptions, plan: str) -> Limits:
    policies = [one.policy() for one in options.policies]
    if options.cap_completion:
        policies = [replace(policy, reserve=Reserve.DECLARED) for policy in policies]
    admitting = [policy for policy in policies if not policy.when or policy.when.admits(plan)]
    return Limits(tuple(admitting), caps(options.default_completion))


def claims(
    policies: Iterable[Policy], keys: Mapping[Dimensions, str], estimate: Estimate, model: str
) -> list[Claim]:
    """What a request for a model wants charged: its estimate, with each of these policies."""
    return [Claim(policy, keys[policy.per], policy.reserved(estimate, model), model) for policy in policies]


def reserved(claims: Iterable[Claim], estimate: Estimate) -> int:
    """The tokens that claims reserve: the most that one of them counts in all, else the whole estimate."""
    totals = (claim.amount // UNIT for claim in claims if claim.policy.count is Count.TOTAL)
    return max(totals, default=estimate.total)


def _faults(options: LimitOptions, around: Surroundings) -> Iterator[Fault]:
    """What in these options can never come to pass, and where."""
    if not options.policies and not around.plan:
        yield ("policies",), "expected at least one policy, not none"
    names: set[str] = set()
    for index, policy in enumerate(options.policies):
        for within, message in _policy_faults(policy, options, around, names):
            yield ("policies", index, *within), message
        names.add(policy.name)


def _policy_faults(
    policy: PolicyOptions, options: LimitOptions, around: Surroundings, names: set[str]
) -> Iterator[Fault]:
    if policy.name in names:
        yield ("name",), f"expected a name that no policy before has, not {policy.name}"
    if policy.name == CAP:
        yield ("name",), f"expected another name than {CAP}, which is a plan's cap"
    if options.cap_completion and "reserve" in policy.model_fields_set and policy.reserve != Reserve.DECLARED:
        yield ("reserve",), f"expected declared beside cap-completion: true, not {policy.reserve}"
    if policy.when is None:
        return
    for index, glob in enumerate(policy.when.user or ()):
        if not glob and options.missing_user == "refuse":
            yield ("when", "user", index), "expected a user beside missing-user: refuse, not an empty one"
    yield from _plan_faults(policy, policy.when.plan or (), around)


def _plan_faults(policy: PolicyOptions, globs: tuple[str, ...], around: Surroundings) -> Iterator[Fault]:
    """Where a policy asks for plans that nobody has to whom it could apply."""
    at: Path = ("when", "plan")
    if globs and around.authentication == "pass-through":
        yield at, "expected only with authentication: virtual-keys, whose keys have plans"
    elif policy.name in around.changed:
        if globs and not Globs(globs).match(around.plan):
            yield at, f"expected a glob that matches the plan it is said of, {around.plan}"
    else:
        keeping = [plan for plan, removed in around.plans.items() if policy.name not in removed]
        for index, glob in enumerate(globs):
            if glob and not Globs((glob,)).any_of(keeping):
                known = ", ".join(keeping) or "there is none"
                yield (*at, index), f'expected a plan that has this policy ({known}), not "{glob}"'
