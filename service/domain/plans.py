"""Plans: what a definition says anew for the callers of a plan, merged with what its step says for all."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeGuard

from pydantic import BaseModel

from service.domain.decoding import fitted
from service.domain.marks import Document, Path, near

CAP = "default-completion"  # the one member of a plan that is no policy
_AT: Path = ("x-weir", "plans")

Fault = tuple[Path, str]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a step's options must fit.

    `plans` are those of the definition, each with the names of the policies that it removes. `plan` is
    whose callers the options are for, empty for those of none; `changed` are the policies it says anew.
    """

    authentication: str
    plans: Mapping[str, frozenset[str]]
    plan: str = ""
    changed: frozenset[str] = frozenset()


class Particular(Protocol):
    """Options that do not fit everywhere."""

    def faults(self, surroundings: Surroundings) -> Iterator[Fault]:
        """What does not fit: where within the options, and what was expected."""


def is_particular(options: object) -> TypeGuard[Particular]:
    """Whether options can say what does not fit them."""
    return hasattr(options, "faults")


def surroundings(document: Document) -> Surroundings:
    """What a definition is around its steps, as far as it can be read."""
    return Surroundings(
        authentication=str(document.value(("x-weir", "authentication"))),
        plans={
            name: frozenset(policy for policy, said in plan.items() if said is None)
            for name, plan in _objects(document.value(_AT))
        },
    )


def plans_of(
    document: Document, steps: Mapping[Path, type[BaseModel]], around: Surroundings
) -> dict[str, BaseModel]:
    """For each plan the options of the one step that has policies, as they are for the plan's callers.

    `steps` are the options of all steps that have policies, by their places. The document has the faults
    of what does not fit.
    """
    if not around.plans:
        return {}
    if around.authentication == "pass-through":
        document.fault(_AT, "expected only with authentication: virtual-keys, whose keys have plans")
    if len(steps) != 1:
        found = len(steps) or "none"
        document.fault(_AT, f"expected beside exactly one step that has policies, not {found}", at_name=True)
        return {}
    ((step, model),) = steps.items()
    plans = {
        name: _options(document, name, said, step, model, around)
        for name, said in _objects(document.value(_AT))
    }
    return {name: options for name, options in plans.items() if options is not None}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A policy as a plan has it: its index among the step's (None: it is the plan's own), and what the plan
    says of it (None: nothing)."""

    index: int | None
    name: str
    policy: Mapping[str, Any]
    said: Mapping[str, Any] | None


def _options(
    document: Document,
    name: str,
    said: Mapping[str, Any],
    step: Path,
    model: type[BaseModel],
    around: Surroundings,
) -> BaseModel | None:
    """What the step's options are for one plan; None where they are none."""
    at, base = (*_AT, name), document.value(step)
    policies = base.get("policies") if isinstance(base, dict) else None
    if not isinstance(policies, list) or not all(isinstance(policy, dict) for policy in policies):
        return None  # which is a fault of the step's
    entries = list(_entries(policies, said))
    faults = list(_misfits(said, [policy.get("name") for policy in policies]))
    for within, message in faults:
        document.fault((*at, *within), message)
    if faults:
        return None
    merged = {**base, "policies": [entry.policy for entry in entries]}
    if CAP in said:
        merged[CAP] = said[CAP]
    place = partial(_place, document, at, step, entries, said)
    options = fitted(document, merged, model, place)
    if is_particular(options):
        changed = frozenset(name for name, policy in said.items() if policy is not None)
        for within, message in options.faults(replace(around, plan=name, changed=changed)):
            document.fault(place(within), message)
    return options


def _misfits(said: Mapping[str, Any], known: Collection[Any]) -> Iterator[Fault]:
    words = [word for word in known if isinstance(word, str)]
    for name, policy in said.items():
        if name == CAP:
            continue
        if policy is None and name not in known:
            yield (name,), f"expected a policy of the step's to remove{near(name, words)}"
        elif policy is not None and not isinstance(policy, dict):
            yield (name,), "expected members of a policy, or null to remove it"
        elif policy is not None and "per" not in policy and name not in known and near(name, words):
            yield (
                (name,),
                f"expected a policy of the step's{near(name, words)}, or one of the plan's own, with per",
            )
        elif policy is not None and "name" in policy:
            yield (name, "name"), "expected no name: the policy is named before the colon"


def _entries(policies: list[dict[str, Any]], said: Mapping[str, Any]) -> Iterator[_Entry]:
    """The step's policies, changed or removed, and behind them the plan's own."""
    for index, policy in enumerate(policies):
        name = str(policy.get("name"))
        if name not in said:
            yield _Entry(index, name, policy, None)
        elif isinstance(changes := said[name], dict):
            yield _Entry(index, name, {**policy, **changes}, changes)
    known = [policy.get("name") for policy in policies]
    for name, policy in said.items():
        if name not in (CAP, *known) and isinstance(policy, dict):
            yield _Entry(None, name, {"name": name, **policy}, policy)


def _place(
    document: Document, at: Path, step: Path, entries: Sequence[_Entry], said: Mapping[str, Any], within: Path
) -> Path:
    """Where a part of merged options stands: in the plan where that says it, else in the step.

    What the plan changes around a member that the step has may make that wrong; it is the plan's fault then.
    """
    match within:
        case ("policies", int(number), *rest):
            entry, own = entries[number], (*step, "policies", entries[number].index or 0, *rest)
            if entry.index is not None and (entry.said is None or _is_told(document, own, rest, entry.said)):
                return own
            return (*at, entry.name, *rest)
        case ("policies",):
            return at
        case (member, *_) if member in said:
            return (*at, *within)
    return (*step, *within)


def _is_told(document: Document, own: Path, rest: Sequence[str | int], said: Mapping[str, Any]) -> bool:
    """Whether a fault is the step's, which has told it, and the plan says nothing of its member."""
    return bool(rest) and rest[0] not in said and document.is_faulty(own)


def _objects(members: object) -> list[tuple[str, dict[str, Any]]]:
    """The members of an object that are objects themselves."""
    if not isinstance(members, dict):
        return []
    return [(name, member) for name, member in members.items() if isinstance(member, dict)]
