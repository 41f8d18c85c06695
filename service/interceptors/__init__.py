"""Interceptors: the steps a flow may name, one file each; the file's name is the step's name."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from pydantic import BaseModel

from service.adapters.threads import Threads
from service.domain.address import Proxies
from service.domain.api import Api, Step
from service.domain.exchange import Exchange

_PHASES = {"request": "on_request", "response": "on_response"}


class Interceptor(Protocol):
    """A step as built. A class defines one phase or both; a flow names it only where it has one."""

    async def on_request(self, exchange: Exchange) -> None:
        """Before forwarding; raise a Rejection to refuse."""

    async def on_response(self, exchange: Exchange) -> None:
        """The answer's head is here, nothing is sent yet."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a step may need: the definition it is part of, and the adapters.

    `digest` turns a secret or a name into what may be stored and logged. `proxies` are those that are
    trusted to say where a request comes from. `threads` do what takes long. `journal` is told what there
    is to see of an exchange that is over.
    """

    api: Api
    ledger: Any
    tokenizer: Any
    logs: Any
    metrics: Any
    digest: Callable[[str], str]
    proxies: Proxies = Proxies()  # noqa: RUF009 - it is frozen
    threads: Threads = field(default_factory=partial(Threads, 1))
    journal: Callable[[Mapping[str, object]], object] = len  # nobody


def options() -> dict[str, type[BaseModel]]:
    """The options of every step there is, by its name."""
    return {name: _module(name).Options for name in _names()}


def phases() -> dict[str, tuple[str, ...]]:
    """For every step, which of the flows `request` and `response` it takes part in."""
    return {
        name: tuple(phase for phase, method in _PHASES.items() if hasattr(_class(name), method))
        for name in _names()
    }


def build(step: Step, tools: Tools) -> Interceptor:
    """The interceptor of a step. Raises ValueError where its options and the definition do not fit."""
    interceptor: Interceptor = _class(step.name)(step.options, tools)
    return interceptor


def unfit(tools: Tools) -> list[str]:
    """Why the steps of a definition cannot be built; empty where they can."""
    reasons = []
    for step in (*tools.api.request, *tools.api.response):
        try:
            build(step, tools)
        except ValueError as error:
            reasons.append(str(error))
    return reasons


def _names() -> list[str]:
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]


def _class(name: str) -> Any:
    return getattr(_module(name), name.title().replace("-", ""))


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
