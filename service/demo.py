"""Demo: a minute in the life of a gateway, with a store and a model of its own."""

import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import yaml

from service import settings as configuration
from service.adapters.ledger.embedded import EmbeddedStore, EmbeddedStoreError
from service.app import default_definition
from service.processes import end_with_parent
from service.settings import Settings

LIMIT, WINDOW = 400, "20s"
PATIENCE = 30.0  # s that anything here may take
QUESTION = "Say in a few words what a weir does to a river, and to the fish in it."

_COLUMNS = "{:<7} {:<6} {:>6} {:>9} {:>6} {:>10} {:>12}  {}"
_HEAD = _COLUMNS.format("user", "answer", "status", "estimate", "used", "remaining", "retry-after", "")


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
        return _COLUMNS.format(
            self.user, kind, self.status, self.estimate, used, self.remaining, wait, remark
        ).rstrip()


class Failed(Exception):
    """Something was not as it should be; the message says what."""


def run(settings: Settings, *, check: bool, real: bool) -> int:
    """Show it, and keep serving; with `check`, assert it and return 0 or 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started ends here in any case
    try:
        with ExitStack() as stack:
            house = _build(stack, settings, real=real)
            _show(house)
            print("\nok" if check else house.farewell(), flush=True)
            if not check:
                house.wait()
    except (Failed, EmbeddedStoreError) as fault:
        print(f"\nfailed: {fault}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


class House:
    """A running gateway, and how to ask it."""

    def __init__(self, gateway: "Program", *, key: str, model: str, shown_key: str) -> None:
        said = gateway.waiting_for(lambda record: record["event"] == "serving")
        self.url, self.operations = str(said["api"]), str(said["operations"])
        for _ in range(2):
            gateway.waiting_for(lambda record: record["event"] == "worker.ready")
        self._gateway = gateway
        self._key = key
        self._shown_key = shown_key
        self._model = model

    def ask(self, user: str, *, stream: bool) -> Shown:
        """Ask one question for a user, and gather what the gateway says of it."""
        body = {"model": self._model, "user": user, "stream": stream, "max_completion_tokens": 80}
        body["messages"] = [{"role": "user", "content": QUESTION}]
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        answer, content = _http("POST", f"{self.url}/v1/chat/completions", json.dumps(body), headers)
        if stream and answer.status == 200 and not content.rstrip().endswith(b"data: [DONE]"):
            raise Failed("a stream ended without [DONE]")
        id = answer.getheader("x-request-id")
        record = self._gateway.waiting_for(
            lambda record: record["event"] == "exchange.response" and record["id"] == id
        )
        wait = answer.getheader("retry-after-ms")
        return Shown(
            user=user,
            stream=stream,
            status=answer.status,
            estimate=_total(record["estimate"]),
            used=_total(record["used"]),
            remaining=int(answer.getheader("x-weir-remaining-tokens") or 0),
            retry_after=int(wait) / 1000 if wait else None,
        )

    def metric(self, name: str) -> float:
        """The sum of a metric's series on the page of operations."""
        _, page = _http("GET", f"{self.operations}/metrics", None, {})
        series = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", page.decode(), re.MULTILINE)
        return sum(map(float, series))

    def farewell(self) -> str:
        """Where everything is, and a command to paste."""
        body = {"model": self._model, "user": "you", "messages": [{"role": "user", "content": "Hello!"}]}
        return (
            f"\nThe gateway goes on until Ctrl-C. API {self.url}/v1, metrics {self.operations}/metrics, "
            f"readiness {self.operations}/readyz. Try it (each user has {LIMIT} tokens per {WINDOW}):\n\n"
            f'curl -i {self.url}/v1/chat/completions \\\n  -H "authorization: Bearer {self._shown_key}" '
            f"-H 'content-type: application/json' \\\n  -d '{json.dumps(body)}'"
        )

    def wait(self) -> None:
        """Until the gateway ends."""
        self._gateway.process.wait()


class Program:
    """A child process that logs JSON lines, which are read here as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: deque[str] = deque(maxlen=1000)
        self._news = threading.Condition()
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str] | None) -> None:
        for line in stream or ():
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def waiting_for(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Take out the first record that is wanted, now or when it comes. Raises Failed."""
        found: dict[str, object] = {}

        def arrived() -> bool:
            for line in self._lines:
                record = json.loads(line) if line.startswith("{") else {"event": line}
                if wanted(record):
                    self._lines.remove(line)
                    found.update(record)
                    return True
            return self.process.poll() is not None

        with self._news:
            if not self._news.wait_for(arrived, PATIENCE) or not found:
                raise Failed("the gateway said: " + "".join([*self._lines][-5:]))
        return found


def _build(stack: ExitStack, settings: Settings, *, real: bool) -> House:
    if real and not settings.openai_api_key:
        raise Failed("--real needs OPENAI_API_KEY")
    store = stack.enter_context(EmbeddedStore())
    if real:
        upstream, key, model = settings.upstream_url, settings.openai_api_key or "", "gpt-4o-mini"
        print(f"the real model at {upstream}, with OPENAI_API_KEY: this costs money")
    else:
        simulator = Program(stack.enter_context(_child("simulate", "--port", "0", "--tokens", "40")))
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
        _child(
            *("serve", "--workers", "2", "--definition", str(definition), "--drain", "0s", *places),
            REDIS_URL=store.url,
            UPSTREAM_URL=upstream,
            WEIR_DIGEST_KEY=settings.digest_key or "",
        )
    )
    return House(Program(gateway), key=key, model=model, shown_key="$OPENAI_API_KEY" if real else key)


def _small_definition() -> str:
    """The definition that comes with Weir, with one small quota for each user."""
    document = yaml.safe_load(default_definition().read_text())
    policy = {"name": "user-tokens", "per": ["credential", "user"], "limit": LIMIT, "window": WINDOW}
    for step in document["x-weir"]["flows"]["request"]:
        if "rate-limit-ai-tokens" in step:
            step["rate-limit-ai-tokens"] = {"remaining-header": True, "policies": [policy]}
    return yaml.safe_dump(document, sort_keys=False)


def _show(house: House) -> None:
    """The story: two users within their quota, one who is not, who waits and is let in again."""
    print(f"two workers, one ledger; each user has {LIMIT} tokens per {WINDOW}\n\n{_HEAD}")
    for user, stream in (("alice", False), ("bob", True), ("carol", False), ("alice", True)):
        shown = _say(house.ask(user, stream=stream))
        _promise(shown.status == 200, f"{user} was not let in")
        _promise(0 < shown.used <= shown.estimate, "the estimate was not corrected to less")
    refused = _until_refused(house)
    _promise(
        refused.retry_after is not None and 0 < refused.retry_after < PATIENCE, "no time to wait was told"
    )
    others = _say(house.ask("bob", stream=False), "others are not concerned")
    _promise(others.status == 200, "bob paid for alice")
    print(f"        ... alice waits {refused.retry_after:.1f}s, as she was told ...")
    time.sleep(refused.retry_after or 0)
    again = _say(house.ask("alice", stream=True), "and is let in again")
    _promise(again.status == 200, "alice was not let in again")
    _settle_down(house)


def _until_refused(house: House) -> Shown:
    for attempt in range(20):
        shown = house.ask("alice", stream=attempt % 2 == 1)
        if shown.status == 429:
            return _say(shown, "refused")
        _promise(_say(shown).status == 200, "an answer was neither 200 nor 429")
    raise Failed("alice was never refused")


def _settle_down(house: House) -> None:
    """When all is quiet, nothing is open, and the metrics say what was seen."""
    until = time.monotonic() + PATIENCE
    while house.metric("weir_reservations_open") or not house.metric("weir_refusals_total"):
        _promise(time.monotonic() < until, "reservations stayed open, or the metrics are silent")
        time.sleep(0.2)
    print("\nnothing is open any more; the metrics have counted every answer")


def _say(shown: Shown, remark: str = "") -> Shown:
    print(shown.line(remark), flush=True)
    return shown


def _promise(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Failed(otherwise)


def _total(tokens: object) -> int:
    return sum(tokens.get(kind, 0) for kind in ("prompt", "completion")) if isinstance(tokens, dict) else 0


@contextmanager
def _child(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A command of Weir's, which knows no settings but those it is given, ended with the block."""
    unset = {variable: "" for variable, *_ in configuration.described()}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env=configuration.inherited(**{**unset, **environment}),
        preexec_fn=end_with_parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _http(
    method: str, url: str, body: str | None, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request(method, parts.path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{url}: {error}") from error
    finally:
        connection.close()


def _taken(*ports: int) -> bool:
    """Whether somebody listens on one of these already."""
    for port in ports:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.connect()
        except OSError:
            continue
        connection.close()
        return True
    return False
