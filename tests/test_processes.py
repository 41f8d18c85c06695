"""Weir as processes: many workers and one ledger, and every way in which a process can end."""

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from service.adapters import vocabularies
from service.adapters.ledger.embedded import EmbeddedStore
from service.processes import run_or_say_why, serve
from service.settings import load
from tests.programs import (
    Gateway,
    asked,
    charged,
    definition,
    is_running,
    open_reservations,
    run,
    serving,
    simulating,
    until,
)
from tests.sockets import listens, owner

ASK: dict[str, Any] = {
    "model": "gpt-4o",
    "user": "ann",
    "messages": [{"role": "user", "content": "How deep is the river?"}],
    "max_completion_tokens": 50,
}
STREAM = ASK | {"stream": True, "max_completion_tokens": 1000}
KEY = {"authorization": "Bearer sk-of-the-tests-own"}
# Windows that neither drain nor end during a test, so that an account is a plain sum.
TOKENS: dict[str, Any] = {
    "name": "tokens",
    "per": ["credential", "user"],
    "window": "3650d",
    "algorithm": "fixed-window",
}
STREAMS = {"name": "streams", "per": ["credential", "user"], "limit": 1, "count": "concurrent-requests"}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with simulating() as url:
        yield url


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as store:
        yield store


@asynccontextmanager
async def caller(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(gateway.url, headers=KEY, connector=connections) as session:
        yield session


def chat(session: aiohttp.ClientSession, body: dict[str, Any], simulate: str = "") -> Any:
    fields = {"x-simulate": simulate} if simulate else {}
    return session.post("/v1/chat/completions", json=body, headers=fields)


def used(record: dict[str, Any]) -> int:
    return int(record["used"]["prompt"]) + int(record["used"]["completion"])


# -- many at once ----------------------------------------------------------------------------------------


@dataclass
class HeldModel:
    """A model that answers nobody until it is told to `go`; the nth answer has used n tokens."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    asked: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found
        await reader.readexactly(int(found[1]))
        self.asked += 1
        usage = {"prompt_tokens": 13, "completion_tokens": self.asked, "total_tokens": 13 + self.asked}
        await self.go.wait()
        body = json.dumps({"choices": [], "usage": usage}).encode()
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def held_model() -> AsyncIterator[HeldModel]:
    model = HeldModel()
    server = await asyncio.start_server(model.answer, "127.0.0.1", 0, backlog=500)
    async with server:
        model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield model


async def test_of_200_requests_at_once_over_3_workers_exactly_as_many_are_granted_as_fit(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    each, fit = 13 + 50, 77  # tokens of a request's estimate, and how many of it the limit holds
    file = definition(tmp_path, TOKENS | {"limit": each * fit + each // 2})
    async with held_model() as model:
        arguments = ("--definition", str(file), "--ledger-deadline", "10s")
        with serving(*arguments, workers=3, REDIS_URL=store.url, UPSTREAM_URL=model.url) as gateway:
            async with caller(gateway) as session:

                async def ask() -> int:
                    async with chat(session, ASK) as answer:
                        await answer.read()
                        if answer.status != 200:
                            refusals.append(answer.status)
                        if len(refusals) == 200 - fit:
                            model.go.set()  # not before the last is decided: all are in flight together
                        return int(answer.status)

                refusals: list[int] = []
                async with asyncio.timeout(30):
                    statuses = await asyncio.gather(*(ask() for _ in range(200)))
            assert statuses.count(200) == model.asked == fit
            assert refusals == [429] * (200 - fit)
            gateway.waiting_for("exchange.response", count=200)
            granted = gateway.records("exchange.response", status=200)
            assert {sum(record["estimate"].values()) for record in granted} == {each}
            assert sum(map(used, granted)) == 13 * fit + fit * (fit + 1) // 2
            assert charged(store.url, "tokens") == sum(map(used, granted))
            assert open_reservations(store.url) == 0
            assert gateway.stop() == 0
    assert gateway.records(level="error") == []


# -- SIGTERM ---------------------------------------------------------------------------------------------


async def test_a_gateway_that_is_told_to_end_finishes_its_streams_and_settles(
    model: str, store: EmbeddedStore, tmp_path: Path
) -> None:
    file = definition(tmp_path, TOKENS | {"limit": 100_000})
    arguments = ("--definition", str(file), "--drain", "2s", "--grace", "20s")
    told = {"REDIS_URL": store.url, "UPSTREAM_URL": model}
    with serving(*arguments, workers=2, **told) as gateway:
        async with caller(gateway) as session, AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(chat(session, STREAM, "tokens=60, rate=30")) for _ in range(4)
            ]
            for stream in streams:
                await stream.content.readline()
            readyz = f"{gateway.operations}/readyz"
            assert asked(readyz)[0] == 200
            os.kill(gateway.pid, signal.SIGTERM)
            until(lambda: asked(readyz)[0] == 503, within=1.0)
            async with chat(session, ASK) as answer:
                assert (answer.status, answer.headers["connection"]) == (200, "close")
            texts = [await stream.text() for stream in streams]
            assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        assert gateway.ended() == 0
    assert gateway.records(level="error") == []
    records = gateway.records("exchange.response", outcome="complete")
    assert len(records) == 5
    assert [record["settled"] for record in records] == ["settled"] * 5
    assert charged(store.url, "tokens") == sum(map(used, records))
    assert open_reservations(store.url) == 0


async def test_a_stream_that_outlives_the_grace_is_cut_and_what_it_brought_is_charged(
    model: str, store: EmbeddedStore, tmp_path: Path
) -> None:
    file = definition(tmp_path, TOKENS | {"limit": 100_000}, STREAMS)
    arguments = ("--definition", str(file), "--drain", "0s", "--grace", "300ms")
    with serving(*arguments, REDIS_URL=store.url, UPSTREAM_URL=model) as gateway:
        async with caller(gateway) as session, chat(session, STREAM, "tokens=900, rate=50") as stream:
            for _ in range(20):
                await stream.content.readline()
            os.kill(gateway.pid, signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):  # a clean end would look like success
                await stream.read()
        assert gateway.ended() == 0
    [error] = gateway.records(level="error")
    assert error["event"].startswith("Cancel 1 running task(s)")
    [record] = gateway.records("exchange.response")
    assert record["outcome"] == "stopped"
    assert 9 <= record["used"]["completion"] < 200
    assert charged(store.url, "tokens") == used(record)
    assert charged(store.url, "streams") == 0
    assert open_reservations(store.url) == 0


async def test_nobody_queues_at_a_port_behind_which_nobody_answers_any_more(model: str) -> None:
    with serving("--grace", "30s", UPSTREAM_URL=model) as gateway:
        place = urlsplit(gateway.url)
        async with caller(gateway) as session, chat(session, STREAM, "stall=5") as stream:
            await stream.content.readline()
            os.kill(gateway.pid, signal.SIGTERM)

            def is_refused() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex((place.hostname, place.port)) != 0

            until(is_refused, within=5.0)
            assert gateway.process.poll() is None
            os.kill(gateway.pid, signal.SIGINT)  # who has no patience left need not wait for the grace
            until(lambda: gateway.process.poll() is not None, within=4.0)
        assert gateway.ended() == 0


# -- Ctrl-C, SIGKILL -------------------------------------------------------------------------------------


async def test_ctrl_c_ends_everything_at_once_and_settles_what_is_cut(
    model: str, store: EmbeddedStore, tmp_path: Path
) -> None:
    file = definition(tmp_path, TOKENS | {"limit": 100_000})
    arguments = ("--definition", str(file), "--drain", "60s", "--grace", "60s")
    told = {"REDIS_URL": store.url, "UPSTREAM_URL": model}
    with serving(*arguments, workers=2, **told) as gateway:
        async with caller(gateway) as session, chat(session, STREAM, "stall=5") as stream:
            for _ in range(10):
                await stream.content.readline()
            os.killpg(gateway.pid, signal.SIGINT)
            until(lambda: gateway.process.poll() is not None, within=4.0)
        assert gateway.ended() == 0
    assert gateway.records(level="error") == []
    [record] = gateway.records("exchange.response")
    assert (record["outcome"], record["settled"]) == ("stopped", "settled")
    assert charged(store.url, "tokens") == used(record)
    assert open_reservations(store.url) == 0


async def test_a_worker_that_is_killed_is_replaced_and_its_reservations_end_with_their_leases(
    model: str, store: EmbeddedStore, tmp_path: Path
) -> None:
    file = definition(tmp_path, TOKENS | {"limit": 100_000}, STREAMS)
    arguments = ("--definition", str(file), "--lease", "1s")
    told = {"REDIS_URL": store.url, "UPSTREAM_URL": model}
    with serving(*arguments, workers=2, **told) as gateway:
        async with caller(gateway) as session:
            async with chat(session, STREAM, "stall=5") as stream:
                for _ in range(10):
                    await stream.content.readline()
                assert stream.connection is not None
                worker = owner(gateway, stream.connection.transport.get_extra_info("sockname")[1])
                os.kill(worker, signal.SIGKILL)
                with pytest.raises(aiohttp.ClientError):
                    await stream.read()
            async with chat(session, ASK | {"user": "bob"}) as answer:
                assert answer.status == 200  # others go on
            assert gateway.waiting_for("worker.died")["pid"] == worker
            gateway.waiting_for("worker.ready", count=3)
            statuses: list[int] = []
            async with asyncio.timeout(10):
                while not statuses or statuses[-1] != 200:
                    await asyncio.sleep(0.05)
                    async with chat(session, ASK) as answer:
                        statuses.append(answer.status)
        assert set(statuses) <= {429, 200}
        gateway.waiting_for("exchange.response", count=len(statuses) + 1)
        settled = gateway.records("exchange.response", status=200)
    lost = 13 + 1000  # what was reserved stays charged, as nobody knows what was used
    assert charged(store.url, "tokens") == lost + sum(map(used, settled))
    assert charged(store.url, "streams") == 0
    assert open_reservations(store.url) == 0


@pytest.fixture(scope="module")
def doomed() -> Iterator[Gateway]:
    with serving(workers=2) as gateway:
        yield gateway


def test_operations_that_died_are_begun_again(doomed: Gateway) -> None:
    operator = next(pid for pid in doomed.children() if listens(pid, urlsplit(doomed.operations).port))
    os.kill(operator, signal.SIGKILL)
    assert doomed.waiting_for("operations.died")["code"] == -signal.SIGKILL
    assert asked(f"{doomed.operations}/readyz")[0] == 200, doomed.complaints


def test_when_the_parent_is_killed_everything_ends_the_embedded_store_too(doomed: Gateway) -> None:
    children = doomed.children()
    assert len(children) == 4  # the store, operations, two workers
    os.kill(doomed.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, children)), within=5.0)


# -- what cannot start -----------------------------------------------------------------------------------


def test_an_address_that_is_in_use_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for command in (("serve", "--ops-port", "0"), ("simulate",)):
            code, said, complaints = run(*command, "--port", str(port))
            assert (code, said) == (2, "")
            assert complaints == f"127.0.0.1:{port}: Address already in use\n"


def test_a_broken_definition_is_told_with_its_place(tmp_path: Path) -> None:
    file = definition(tmp_path, lifecycle="AVAILABEL")
    code, said, complaints = run("serve", "--port", "0", "--ops-port", "0", "--definition", str(file))
    assert (code, said) == (2, "")
    assert re.match(rf"{re.escape(str(file))}:\d+:\d+: x-weir.lifecycle: expected ", complaints)
    assert "Traceback" not in complaints


def test_keys_that_are_missing_or_broken_are_told_and_no_worker_is_begun_for_ever(tmp_path: Path) -> None:
    file = definition(tmp_path, authentication="virtual-keys")
    serve = ("serve", "--port", "0", "--ops-port", "0", "--definition", str(file))
    code, said, complaints = run(*serve)
    assert (code, said) == (2, "")
    assert complaints.splitlines() == [
        "WEIR_KEYS_FILE: expected with authentication: virtual-keys",
        "OPENAI_API_KEY: expected with authentication: virtual-keys",
    ]
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys:\n- {sha256: abc, id: ann}\n")
    code, said, complaints = run(*serve, "--keys-file", str(keys), environment={"OPENAI_API_KEY": "sk-x"})
    assert (code, said) == (2, "")
    assert complaints.startswith(f"{keys}:2:12: keys[0].sha256: expected the SHA-256 of a key")


def test_a_vocabulary_that_is_another_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(vocabularies.SHA256, "cl100k_base", "0" * 64)
    complaints: list[str] = []
    assert run_or_say_why(lambda: serve(load({}, {}), str(tmp_path)), complaints.extend) == 2
    [complaint] = complaints
    assert re.search(r"cl100k_base.tiktoken.xz: found sha256 \w{64}, expected 0{64}$", complaint)


def test_a_schema_that_cannot_be_compiled_is_told_and_no_worker_is_begun_for_ever(tmp_path: Path) -> None:
    file = definition(tmp_path)
    document = yaml.safe_load(file.read_text())
    document["components"]["schemas"]["ChatRequest"]["properties"]["model"]["type"] = "strinx"
    file.write_text(yaml.safe_dump(document))
    code, said, complaints = run("serve", "--port", "0", "--ops-port", "0", "--definition", str(file))
    assert (code, said) == (2, "")
    assert complaints == "not a JSON Schema of draft 7: Unknown type\n"
