"""Targets: what is measured side by side, from nothing in between to everything."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine, request, servers
from benchmarks.machine import Cores
from benchmarks.servers import Server
from service.adapters.ledger.embedded import EmbeddedStore
from service.app import default_definition

MODEL, BARE, HELPED, WEIR = "model", "bare", "bare-sniffio", "weir"
NAMES = (MODEL, BARE, HELPED, WEIR)
TITLES = {
    MODEL: "the simulated model directly",
    BARE: "bare Starlette + httpx pass-through",
    HELPED: "the same, with sniffio installed",
    WEIR: "Weir, everything on",
}

_ENOUGH = 10**9  # tokens or requests, which nobody here uses up
_FOREIGN = ("OPENAI_API_KEY", "WEIR_KEYS_FILE", "WEIR_HOST", "WEIR_OPS_HOST", "WEIR_LOG_LEVEL")


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat requests."""

    name: str
    server: Server


@contextmanager
def targets(names: Sequence[str], *, folder: Path, cores: Cores) -> Iterator[list[Target]]:
    """The targets of these names, running, each over the same model, which has other cores."""
    with ExitStack() as stack:
        model = stack.enter_context(_model(folder, cores.others))
        plain = partial(servers.python, folder=folder, cores=cores.measured)
        ways: dict[str, Callable[[], AbstractContextManager[Server]]] = {
            MODEL: lambda: _model(folder, cores.measured),
            BARE: partial(plain, "benchmarks.without", "sniffio", "benchmarks.baseline", model.url),
            HELPED: partial(plain, "benchmarks.baseline", model.url),
            WEIR: lambda: _weir(model.url, folder, cores),
        }
        yield [Target(name, stack.enter_context(ways[name]())) for name in names]


def generous(definition: str) -> str:
    """A definition whose policies are all asked, and none of which refuses."""
    document: dict[str, Any] = yaml.safe_load(definition)
    for step in document["x-weir"]["flows"]["request"]:
        for policy in step.get("rate-limit-ai-tokens", {}).get("policies", ()):
            policy["limit"] = _ENOUGH
    return yaml.safe_dump(document, sort_keys=False)


def _model(folder: Path, cores: frozenset[int]) -> AbstractContextManager[Server]:
    return servers.python("service", "simulate", "--port", "0", "--fixed-usage", folder=folder, cores=cores)


@contextmanager
def _weir(upstream: str, folder: Path, cores: Cores) -> Iterator[Server]:
    definition = folder / "generous.yaml"
    definition.write_text(generous(default_definition().read_text()))
    flags = ["--port", "0", "--ops-port", "0", "--workers", "1", "--drain", "0s"]
    with EmbeddedStore() as store:
        machine.pin(store.pid, cores.others)
        environment = dict.fromkeys(_FOREIGN, "")
        environment |= {"REDIS_URL": store.url, "WEIR_DIGEST_KEY": secrets.token_hex(32)}
        environment["UPSTREAM_URL"] = f"{upstream}{request.BASE}"
        with servers.python(
            *("service", "serve", *flags, "--definition", str(definition)),
            folder=folder,
            cores=cores.measured,
            **environment,
        ) as server:
            yield server
