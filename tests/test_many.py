"""Ten thousand users and a thousand models leave a gateway as it was, and what is secret stays so."""

import asyncio
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import redis

from tests.programs import Gateway, asked, open_reservations, serving, simulating, until

USERS, MODELS = 10_000, 1_000
AT_ONCE = 64
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with simulating("--fixed-usage", "--tokens", "3") as url:
        yield url


@pytest.fixture
def gateway(model: str, store_url: str) -> Iterator[Gateway]:
    with serving(REDIS_URL=store_url, UPSTREAM_URL=model, WEIR_LOG_LEVEL="info") as gateway:
        yield gateway


async def ask(session: aiohttp.ClientSession, user: str, model: str, text: str = "Hello") -> int:
    body = {"model": model, "user": user, "messages": [{"role": "user", "content": text}]}
    async with session.post(CHAT, json={**body, "max_completion_tokens": 3}) as answer:
        await answer.read()
        return answer.status


async def ask_many(gateway: Gateway, count: int) -> None:
    """So many requests, each of another user, for some model or other."""
    numbers = iter(range(count))

    async def caller(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            name = secrets.token_hex(8)
            assert await ask(session, name, f"model-{number % MODELS}-{name[:2]}") == 200

    headers = {"authorization": f"Bearer {secrets.token_hex(8)}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        await asyncio.gather(*(caller(session) for _ in range(AT_ONCE)))


def series(gateway: Gateway) -> set[str]:
    """The names and labels of all numbers on the page."""
    page = asked(gateway.operations + "/metrics")[1]
    return set(re.findall(r"^(\w+(?:\{.*?\})?) \S+$", page, re.MULTILINE))


def resident(gateway: Gateway) -> int:
    """Bytes that its processes have to themselves."""
    total = 0
    for pid in gateway.children():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += 1024 * sum(map(int, re.findall(r"^Private_\w+:\s+(\d+)", text, re.MULTILINE)))
    return total


async def test_many_users_and_models_leave_series_and_memory_as_they_were(
    gateway: Gateway, store_url: str
) -> None:
    await ask_many(gateway, USERS)  # whatever remembers names is full then
    until(lambda: not open_reservations(store_url))
    before, memory = series(gateway), resident(gateway)
    await ask_many(gateway, USERS)
    until(lambda: not open_reservations(store_url))
    grown = series(gateway) - before
    assert {one for one in grown if "weir_top_subject" not in one} == set()
    assert len([one for one in series(gateway) if "weir_top_subject" in one]) <= 20
    assert resident(gateway) - memory < 1_000 * USERS  # bytes
    with redis.Redis.from_url(store_url) as client:
        keys = list(client.scan_iter("*", count=1000))
        assert 2 * USERS <= len(keys) < 2 * USERS + 100
        assert all(client.pttl(key) > 0 for key in keys)
        assert client.info("memory")["used_memory_dataset"] < 3_000 * len(keys)


CANARY = "sk-canary-" + secrets.token_hex(12)
PERSON = "person-" + secrets.token_hex(12)
WORDS = "words-" + secrets.token_hex(12)


async def test_no_secret_no_name_and_no_words_come_out_anywhere(gateway: Gateway, store_url: str) -> None:
    trace = "00-" + secrets.token_hex(16) + "-" + secrets.token_hex(8) + "-01"
    headers = {
        "authorization": f"Bearer {CANARY}",
        "cookie": f"session={CANARY}",
        "x-api-key": CANARY,
        "traceparent": trace,
        "tracestate": f"weir={CANARY}",
    }
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        for model in ("gpt-4o", "gpt-4o", "another"):
            assert await ask(session, PERSON, model, WORDS) == 200
        bad, kind = b'{"model": ' + WORDS.encode(), {"content-type": "application/json"}
        async with session.post(f"{CHAT}?key={CANARY}", data=bad, headers=kind) as answer:
            assert answer.status == 400
        async with session.get("/v1/" + WORDS) as answer:
            assert answer.status == 404
    gateway.waiting_for("exchange.response", count=5)
    until(lambda: not open_reservations(store_url))
    page = asked(gateway.operations + "/metrics")[1]
    with redis.Redis.from_url(store_url) as client:
        until(lambda: any(client.type(key) == b"stream" for key in client.scan_iter("*")))
        held = [(key, client.dump(key)) for key in client.scan_iter("*")]
        held += [(key, client.xrange(key)) for key, _ in held if client.type(key) == b"stream"]
    assert trace[3:35] in gateway.text
    assert gateway.stop() == 0
    for place in (gateway.text, gateway.complaints, page, repr(held)):
        for secret in (CANARY, PERSON):
            assert secret not in place
        assert WORDS not in place.replace(f"/v1/{WORDS}", "")  # a path is logged as it was asked for
