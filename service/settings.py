"""Settings: what the process needs to know, read once from the environment and the command line."""

import argparse
import dataclasses
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.domain.address import Proxies, proxies

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name
VARIABLE = re.compile(r"WEIR_VAR_([A-Z][A-Z0-9_]*)")


class SettingsError(Exception):
    """Settings that cannot be used; `errors` say which, and what was expected."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Secret(str):
    """A text that does not show itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "****"


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return read


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
        value = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2]] if match else -1
        if not least <= value <= most:
            raise ValueError(f"a duration from {least:g}s to {most:g}s, such as 250ms or 30s")
        return value

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        try:
            parts = urlsplit(text)
            whole = parts.scheme in schemes and parts.port != 0 and bool(parts.netloc or parts.path)
        except ValueError:  # brackets that do not match, or a port that is none
            whole = False
        if not whole:
            raise ValueError(f"an address beginning {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return Secret(text)  # it may hold a password

    return read


def _ledger(text: str) -> str:
    from service.adapters.ledger import address  # redis is imported only where there is something to read

    address.read(text)
    return Secret(text)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError("a file that is there")
    return path


def _secret(text: str) -> Secret:
    if not text.isprintable() or not text.isascii():
        raise ValueError("printable ASCII without line breaks")
    return Secret(text)


def _digest_key(text: str) -> Secret:
    if len(text) < 16:
        raise ValueError("at least 16 characters; `openssl rand -hex 32` makes some")
    return _secret(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _setting(
    default: Any, read: Callable[[str], Any], help: str, *, name: str = "", secret: bool = False
) -> Any:
    return field(default=default, metadata={"read": read, "help": help, "name": name, "secret": secret})


_MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process is told from outside. Secrets have no flag: all can see a command line."""

    host: str = _setting("127.0.0.1", str, "where the API listens")
    port: int = _setting(8080, _number(0, 65535), "the API's port; 0 takes a free one")
    ops_host: str = _setting("127.0.0.1", str, "where /metrics, /livez and /readyz listen")
    ops_port: int = _setting(9464, _number(0, 65535), "their port; 0 takes a free one")
    workers: int = _setting(1, _number(1, 128), "processes that serve the API")
    definition: Path | None = _setting(None, _file, "the API definition; else the one that comes with Weir")
    keys_file: Path | None = _setting(None, _file, "the virtual keys, where the definition uses them")
    redis_url: str | None = _setting(
        None,
        _ledger,
        "the ledger's server, cluster or sentinels; else an embedded one that ends with the process",
        name="REDIS_URL",
    )
    upstream_url: str = _setting(
        "https://api.openai.com/v1", _url("http", "https"), "the model's server", name="UPSTREAM_URL"
    )
    openai_api_key: Secret | None = _setting(
        None, _secret, "the key put upstream for virtual keys", name="OPENAI_API_KEY", secret=True
    )
    digest_key: Secret | None = _setting(
        None,
        _digest_key,
        "keys the digests of names; the same for all that share a ledger",
        secret=True,
    )
    trusted_proxies: Proxies = _setting(
        Proxies(), proxies, "whose X-Forwarded-For counts: addresses and networks, with commas between"
    )
    upstream_connections: int = _setting(1000, _number(1, 65535), "connections to upstream, in each worker")
    counting_threads: int = _setting(2, _number(1, 64), "long texts counted at once, in each worker")
    lease: float = _setting(60.0, _seconds(0.1, 3600), "how long a reservation stands without being renewed")
    ledger_deadline: float = _setting(0.25, _seconds(0.01, 30), "how long a reserve may take, over two tries")
    drain: float = _setting(3.0, _seconds(0, 600), "after SIGTERM, how long answers say `Connection: close`")
    grace: float = _setting(30.0, _seconds(0, 3600), "after that, how long what is under way may take")
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "what is logged at least")
    metric_models: tuple[str, ...] = _setting(
        _MODELS, _words, "models that have a label of their own; others are `other`"
    )
    metric_users: tuple[str, ...] = _setting((), _words, "users that metrics show by name, not by digest")
    exchanges: int = _setting(10_000, _number(0, 10**6), "exchanges kept for `weir tail`; 0: none")
    variables: Mapping[str, str] = field(default_factory=dict)

    def definition_variables(self) -> dict[str, str]:
        """What ${NAME} may stand for in a definition."""
        return {"UPSTREAM_URL": self.upstream_url, **self.variables}


def described() -> list[tuple[str, str, str, object]]:
    """Every setting: its environment variable, its flag (empty for secrets), its help, its default."""
    return [
        (_variable(one), "" if one.metadata["secret"] else _flag(one), one.metadata["help"], one.default)
        for one in _fields()
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting that is no secret."""
    for one in _fields():
        if not one.metadata["secret"]:
            help = f"{one.metadata['help']} [{_variable(one)}]".replace("%", "%%")
            parser.add_argument(_flag(one), dest=one.name, metavar="VALUE", help=help)


def load(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    to_serve: bool = False,
) -> Settings:
    """Read the settings: a flag, else the environment, else the default. Raises SettingsError.

    Only who is about `to_serve` must know the key that is shared with the other gateways of a ledger.
    """
    environment = os.environ if environment is None else environment  # noqa: TID251
    flags = flags or {}
    values: dict[str, Any] = {}
    errors = []
    for one in _fields():
        text = flags.get(one.name) or environment.get(_variable(one))
        if not text:
            continue
        try:
            values[one.name] = one.metadata["read"](text)
        except ValueError as error:
            shown = "what was given" if one.metadata["secret"] or "url" in one.name else repr(text)
            errors.append(f"{_named(one)}: expected {error}, not {shown}")
    known = {_variable(one) for one in _fields()}
    for name in sorted(environment):
        if name.startswith("WEIR_") and name not in known and not VARIABLE.fullmatch(name):
            errors.append(f"{name}: expected a setting of Weir's; there is none of that name")
    if to_serve and values.get("redis_url") and not environment.get("WEIR_DIGEST_KEY"):
        errors.append(
            "WEIR_DIGEST_KEY: expected with REDIS_URL, as all gateways that share a ledger must share it;"
            " `openssl rand -hex 32` makes one"
        )
    if errors:
        raise SettingsError(errors)
    values.setdefault("digest_key", Secret(secrets.token_hex(32)))
    matches = [(VARIABLE.fullmatch(name), value) for name, value in environment.items()]
    return Settings(**values, variables={match[1]: value for match, value in matches if match})


def share_metrics(directory: str) -> None:
    """Let every process count into this directory; before prometheus_client is imported."""
    os.environ[METRICS_DIRECTORY] = directory  # noqa: TID251


def inherited(**changes: str) -> dict[str, str]:
    """The environment for a child process, with changes."""
    return {**os.environ, **changes}  # noqa: TID251


def _fields() -> Sequence["dataclasses.Field[Any]"]:
    return [one for one in dataclasses.fields(Settings) if one.metadata]


def _variable(one: "dataclasses.Field[Any]") -> str:
    return str(one.metadata["name"]) or "WEIR_" + one.name.upper()


def _flag(one: "dataclasses.Field[Any]") -> str:
    return "--" + one.name.replace("_", "-")


def _named(one: "dataclasses.Field[Any]") -> str:
    return _variable(one) if one.metadata["secret"] else f"{_variable(one)} ({_flag(one)})"
