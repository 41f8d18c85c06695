"""House: a running gateway, with a store and a model of its own, and how to ask it."""

import json
import re
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from service.adapters.ledger.embedded import EmbeddedStore
from service.app import default_definition
from service.demo.program import PATIENCE, Failed, Program, child
from service.settings import Settings

LIMIT, WINDOW = 400, "20s"
QUESTION = "Say in a few words what a weir does to a river, and to the fish in it."


COLUMNS = "{:<7} {:<6} {:>6} {:>9} {:>6} {:>10} {:>12}  {}"


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer as the demo shows it; counts in tokens, waits in seconds."""

    user: str
    stream: bool
    status: int
    estimate: int
    used: int
    remaining: int
    retry_after: float | None

    def line(self, remark: str = "") -> str:
        """One readable line."""
        used = str(self.used) if self.status == 200 else "-"
        wait = f"{self.retry_after:.1f}s" if self.retry_after is not None else ""
        kind = "stream" if self.stream else "json"
        return COLUMNS.format(
            self.user, kind, self.status, self.estimate, used, self.remaining, wait, remark
        ).rstrip()


class House:
    """A running gateway, and how to ask it."""

    def __init__(self, gateway: Program, *, store: str, key: str, model: str, shown_key: str) -> None:
        said = gateway.waiting_for(lambda record: record["event"] == "serving")
        self.url, self.operations = str(said["api"]), str(said["operations"])
        for _ in range(2):
            gateway.waiting_for(lambda record: record["event"] == "worker.ready")
        self.store = store
        self.asked = 0  # questions so far
        self._gateway = gateway
        self._key = key
        self._shown_key = shown_key
        self._model = model

    def ask(self, user: str, *, stream: bool) -> Shown:
        """Ask one question for a user, and gather what the gateway says of it."""
        body = {"model": self._model, "user": user, "stream": stream, "max_completion_tokens": 80}
        body["messages"] = [{"role": "user", "content": QUESTION}]
        headers = {"authorization": f"Bearer {self._key}"}
        self.asked += 1
        answer = http("POST", f"{self.url}/v1/chat/completions", json=body, headers=headers)
        if stream and answer.status_code == 200 and not answer.text.rstrip().endswith("data: [DONE]"):
            raise Failed("a stream ended without [DONE]")
        id = answer.headers["x-request-id"]
        record = self._gateway.waiting_for(
            lambda record: record["event"] == "exchange.response" and record["id"] == id
        )
        wait = answer.headers.get("retry-after-ms")
        return Shown(
            user=user,
            stream=stream,
            status=answer.status_code,
            estimate=_total(record["estimate"]),
            used=_total(record["used"]),
            remaining=int(answer.headers.get("x-weir-remaining-tokens", 0)),
            retry_after=int(wait) / 1000 if wait else None,
        )

    def metric(self, name: str) -> float:
        """The sum of a metric's series on the page of operations."""
        page = http("GET", f"{self.operations}/metrics").text
        series = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, series))

    def farewell(self, prometheus: str | None) -> str:
        """Where everything is, and commands to paste."""
        body = {"model": self._model, "user": "you", "max_completion_tokens": 80}
        body["messages"] = [{"role": "user", "content": "Hello!"}]
        return (
            f"\nThe gateway goes on until Ctrl-C. API {self.url}/v1, metrics {self.operations}/metrics, "
            f"readiness {self.operations}/readyz{f', Prometheus {prometheus}' if prometheus else ''}. "
            f"Watch it: REDIS_URL={self.store} weir tail. "
            f"Try it (each user has {LIMIT} tokens per {WINDOW}):\n\n"
            f'curl -i {self.url}/v1/chat/completions \\\n  -H "authorization: Bearer {self._shown_key}" '
            f"-H 'content-type: application/json' \\\n  -d '{json.dumps(body)}'"
        )

    def wait(self) -> None:
        """Until the gateway ends."""
        self._gateway.process.wait()


def http(method: str, url: str, **content: Any) -> httpx.Response:
    """The answer to a request. Raises Failed."""
    try:
        return httpx.request(method, url, timeout=PATIENCE, trust_env=False, **content)
    except httpx.HTTPError as error:
        raise Failed(f"{url}: {error}") from error


def build(stack: ExitStack, settings: Settings, *, real: bool) -> House:
    """Start everything, to end with the stack. Raises Failed or EmbeddedStoreError."""
    if real and not settings.openai_api_key:
        raise Failed("--real needs OPENAI_API_KEY")
    store = stack.enter_context(EmbeddedStore())
    if real:
        upstream, key, model = settings.upstream_url, settings.openai_api_key or "", "gpt-4o-mini"
        print(f"the real model at {upstream}, with OPENAI_API_KEY: this costs money")
    else:
        simulator = Program(stack.enter_context(child("simulate", "--port", "0", "--tokens", "40")))
        said = str(simulator.waiting_for(lambda record: "http://" in str(record["event"]))["event"]).strip()
        upstream, key, model = said.split()[-1], "any-key", "gpt-4o"
        print(said)
    definition = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "demo.yaml"
    definition.write_text(_small_definition())
    taken = _taken(settings.port, settings.ops_port)
    port, ops_port = (0, 0) if taken else (settings.port, settings.ops_port)
    places = ["--host", settings.host, "--port", str(port)]
    places += ["--ops-host", settings.ops_host, "--ops-port", str(ops_port)]
    gateway = stack.enter_context(
        child(
            *("serve", "--workers", "2", "--definition", str(definition), "--drain", "0s", *places),
            REDIS_URL=store.url,
            UPSTREAM_URL=upstream,
            WEIR_DIGEST_KEY=settings.digest_key or "",
        )
    )
    return House(
        Program(gateway), store=store.url, key=key, model=model, shown_key="$OPENAI_API_KEY" if real else key
    )


def _small_definition() -> str:
    """The definition that comes with Weir, with one small quota for each user."""
    document = yaml.safe_load(default_definition().read_text())
    policy = {"name": "user-tokens", "per": ["credential", "user"], "limit": LIMIT, "window": WINDOW}
    for step in document["x-weir"]["flows"]["request"]:
        if "rate-limit-ai-tokens" in step:
            step["rate-limit-ai-tokens"] = {"remaining-header": True, "policies": [policy]}
    return yaml.safe_dump(document, sort_keys=False)


def _total(tokens: object) -> int:
    return sum(tokens.get(kind, 0) for kind in ("prompt", "completion")) if isinstance(tokens, dict) else 0


def _taken(*ports: int) -> bool:
    """Whether somebody listens on one of these already."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
    return False
