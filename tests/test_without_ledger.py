"""Never silently weaker: without the ledger each policy goes its way, and everybody is told."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.domain.tokens import Tokenizer
from service.settings import Secret, Settings
from tests.world import TOKENS, Client, Model, World, becomes, whole

USED = whole(b'{"usage":{"prompt_tokens":9,"completion_tokens":7}}')
LOCAL = {**TOKENS, "limit": 1_000, "window": "1h", "on-ledger-failure": "local"}
AWAY = "unix:///nowhere/at/all"

Built = Callable[..., World]


@pytest.fixture
def world(tokenizer: Tokenizer) -> Built:
    def make(upstream: str, *policies: Mapping[str, Any], url: str = AWAY, workers: int = 2) -> World:
        settings = Settings(digest_key=Secret("a digest key of the tests"), workers=workers)
        flow = [{"rate-limit-ai-tokens": {"policies": policies}}]
        return World(url, tokenizer, upstream, request=flow, settings=settings)

    return make


async def asked(built: World, cap: int) -> Client:
    messages = [{"role": "user", "content": "Hi"}]  # 8 tokens
    body = json.dumps({"model": "gpt-4o", "messages": messages, "max_tokens": cap}).encode()
    client = await built.client(body).ask()
    await built.quiet()
    return client


async def test_a_local_policy_lets_pass_what_fits_into_the_workers_share(world: Built) -> None:
    async with Model([USED]) as model, world(model.url, LOCAL) as built:
        client = await asked(built, 300)
        assert client.status == 200
        assert client.field("x-weir-degraded") == "tokens"
        assert client.field("x-ratelimit-limit-tokens") == "500"
        assert client.field("x-ratelimit-remaining-tokens") == "192"
        refused = await asked(built, 492)  # of the first only 16 stand, and the share is 500
        assert refused.status == 429
        assert refused.field("x-weir-degraded") == "tokens"
        assert "Limit 500" in refused.error["message"]
        assert refused.field("retry-after") is not None
        assert len(model.heard) == 1
        assert built.metric("weir_degraded_total", policy="tokens", mode="local") == 2
        assert built.metric("weir_refusals_total", policy="tokens", reason="limit", enforced="true") == 1


async def test_one_policy_that_refuses_without_the_ledger_speaks_for_all(world: Built) -> None:
    strict = {**TOKENS, "name": "strict"}
    async with Model() as model, world(model.url, LOCAL, strict) as built:
        client = await asked(built, 1)
        assert client.status == 503
        assert model.heard == []
        assert built.metric("weir_degraded_total", policy="strict", mode="refuse") == 1
        assert built.metric("weir_degraded_total", policy="tokens") == 0


async def test_what_is_allowed_is_not_limited_and_a_shadow_refuses_nothing(world: Built) -> None:
    allows = {**TOKENS, "name": "allows", "limit": 1, "on-ledger-failure": "allow"}
    shadow = {**TOKENS, "name": "shadow", "limit": 1, "enforce": False}
    async with Model([USED]) as model, world(model.url, allows, shadow) as built:
        client = await asked(built, 300)
        assert client.status == 200
        assert client.field("x-weir-degraded") == "allows, shadow"
        assert client.field("x-ratelimit-limit-tokens") is None
        for name in ("allows", "shadow"):
            assert built.metric("weir_degraded_total", policy=name, mode="allow") == 1


async def test_a_local_policy_in_shadow_tells_what_it_would_have_refused(world: Built) -> None:
    shadow = {**LOCAL, "name": "shadow", "limit": 1, "enforce": False}
    async with Model([USED]) as model, world(model.url, shadow) as built:
        assert (await asked(built, 300)).status == 200
        assert built.metric("weir_refusals_total", policy="shadow", enforced="false") == 1


async def test_the_ledger_hears_of_it_and_decides_again(world: Built) -> None:
    with EmbeddedStore(server_program()) as store:
        store.stop()
        async with Model([USED]) as model, world(model.url, LOCAL, url=store.url) as built:
            ledger = built.tools.ledger
            assert (await asked(built, 300)).status == 200
            assert ledger.pending == 1
            store.start()
            await becomes(lambda: not ledger.pending and ledger.available, "the delivery")
            with redis.Redis.from_url(store.url) as direct:
                subjects = list(direct.scan_iter("w1:*", _type="hash"))
            assert len(subjects) == 1
            client = await asked(built, 300)
            assert client.field("x-weir-degraded") is None
            assert client.field("x-ratelimit-limit-tokens") == "1000"
            assert client.field("x-ratelimit-remaining-tokens") in ("676", "677")  # 16 before, drained a bit


async def test_the_breaker_the_workers_and_what_was_lost_are_on_the_page_of_metrics(world: Built) -> None:
    allows = {**TOKENS, "on-ledger-failure": "allow"}
    async with Model([USED]) as model, world(model.url, allows, workers=3) as built:
        for _ in range(6):
            await asked(built, 1)
        await becomes(lambda: built.metric("weir_ledger_breaker") > 0, "the breaker")
        assert built.metric("weir_workers_alive") == 3
        assert built.tools.ledger.pending == 6
    assert built.metric("weir_settles_dropped_total") == 6
    assert built.metric("weir_settles_pending") == 0
