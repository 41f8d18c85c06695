"""Programs: Weir's commands as child processes on free ports, which end with the test whatever happens."""

import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import redis
import yaml

from service.app import default_definition
from service.settings import inherited

PATIENCE = 20.0  # s that anything here may take
DIGEST_KEY = "a key of the tests' own"
Record = dict[str, Any]


class Program:
    """A command of Weir's that runs in a session of its own; what it says is read as it comes."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *arguments],
            env=_clean(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._said: list[str] = []
        self._complained: list[str] = []
        self._news = threading.Condition()
        ends = ((self.process.stdout, self._said), (self.process.stderr, self._complained))
        self._readers = [threading.Thread(target=self._read, args=end, daemon=True) for end in ends]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def text(self) -> str:
        """All it said."""
        return "".join(self._said)

    @property
    def complaints(self) -> str:
        """All it said on stderr."""
        return "".join(self._complained)

    def records(self, event: str = "", **fields: object) -> list[Record]:
        """The lines of its log so far, those of an event and with these fields if so asked."""
        records = [json.loads(line) for line in list(self._said) if line.startswith("{")]
        wanted = {"event": event, **fields} if event else fields
        return [one for one in records if wanted.items() <= one.items()]

    def waiting_for(self, event: str, *, count: int = 1, **fields: object) -> Record:
        """The record of an event, the `count`th, now or when it comes."""

        def arrived() -> bool:
            return len(self.records(event, **fields)) >= count or not self._reading()

        with self._news:
            self._news.wait_for(arrived, PATIENCE)
        found = self.records(event, **fields)
        assert len(found) >= count, f"no {event} {fields} in {self.text[-2000:]}\n{self.complaints[-2000:]}"
        return found[count - 1]

    def line(self) -> str:
        """The first line it said, now or when it comes."""
        with self._news:
            self._news.wait_for(lambda: bool(self._said) or not self._reading(), PATIENCE)
        assert self._said, self.complaints
        return self._said[0]

    def children(self) -> list[int]:
        """The processes it started that still run."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split() if is_running(int(pid))]

    def ended(self) -> int:
        """Its exit code, once it has ended and all was read."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to it alone; its exit code."""
        self.process.send_signal(number)
        return self.ended()

    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)


class Gateway(Program):
    """`weir serve` on free ports; `url` is the API's, `operations` the other one."""

    url = ""
    operations = ""

    def wait_until_ready(self, workers: int) -> None:
        said = self.waiting_for("serving")
        self.url, self.operations = said["api"], said["operations"]
        self.waiting_for("worker.ready", count=workers)


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Program]:
    """A command, ended with the block."""
    program = Program(*arguments, environment=environment)
    try:
        yield program
    finally:
        _end(program)


@contextmanager
def serving(*arguments: str, workers: int = 1, **environment: str) -> Iterator[Gateway]:
    """A gateway that is ready, ended with the block."""
    ports = ("--port", "0", "--ops-port", "0", "--workers", str(workers))
    told = {"WEIR_DIGEST_KEY": DIGEST_KEY, "WEIR_DRAIN": "0s", "WEIR_GRACE": "1s", **environment}
    gateway = Gateway("serve", *ports, *arguments, environment=told)
    try:
        gateway.wait_until_ready(workers)
        yield gateway
    finally:
        _end(gateway)


@contextmanager
def simulating(*arguments: str) -> Iterator[str]:
    """The address of a simulated model, up to and with /v1, ended with the block."""
    with running("simulate", "--port", "0", *arguments) as program:
        yield program.line().split()[-1]


def definition(
    folder: Path, *policies: Mapping[str, object], default_completion: int = 1024, **members: object
) -> Path:
    """The definition that comes with Weir, with these policies and these members of x-weir instead."""
    document = yaml.safe_load(default_definition().read_text())
    document["x-weir"].update({name.replace("_", "-"): value for name, value in members.items()})
    for step in document["x-weir"]["flows"]["request"]:
        if "rate-limit-ai-tokens" in step and policies:
            limiter = {"policies": list(policies), "default-completion": default_completion}
            step["rate-limit-ai-tokens"].update(limiter)
    file = folder / "definition.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def until(true: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Wait until something is so; that it never becomes so is a failure."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not become so"
        threading.Event().wait(0.02)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and more of it than an exit code that nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def asked(url: str) -> tuple[int, str]:
    """What a GET is answered: status and content."""
    parts = urlsplit(url)
    with closing(
        http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    ) as connection:
        connection.request("GET", parts.path, headers={"connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command to its end; its exit code, what it said and what it complained of."""
    with running(*arguments, **(environment or {})) as program:
        return program.ended(), program.text, program.complaints


def _clean(told: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without what may lie in it that a program of Weir's listens to."""
    names: Sequence[str] = ("REDIS_URL", "UPSTREAM_URL", "OPENAI_API_KEY")
    kept = {
        name: value
        for name, value in inherited().items()
        if not name.startswith("WEIR_") and name not in names
    }
    return {**kept, **told}


def _end(program: Program) -> None:
    """End it, and everything it started."""
    with suppress(ProcessLookupError):
        program.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            program.process.wait(5)
        os.killpg(program.pid, signal.SIGKILL)
    program.ended()


def open_reservations(url: str) -> int:
    """How many reservations stand in a ledger, one for each subject that a request concerned."""
    with redis.Redis.from_url(url) as client:
        names = [name for key in client.scan_iter("w1:*", _type="hash") for name in client.hkeys(key)]
    return sum(1 for name in names if name.startswith(b"~") and len(name) > 1)


def charged(url: str, policy: str) -> int:
    """What all accounts of a policy in a ledger are charged with, in whole tokens or requests."""
    with redis.Redis.from_url(url) as client:
        thousandths = sum(
            int(struct.unpack_from(">d", account, 1)[0])
            for key in client.scan_iter("w1:*", _type="hash")
            for name, account in client.hgetall(key).items()
            if name.startswith(policy.encode() + b":")
        )
    assert thousandths % 1000 == 0
    return thousandths // 1000
