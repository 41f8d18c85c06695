"""Vitals: what a worker says of itself while it serves."""

import json

from service.domain.tokens import Tokenizer
from tests.world import STALL, Model, World, becomes

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
RESERVED = 8 + 100  # 3 for the message, 1 for its role, 1 for the text, 3 for the reply; the declared cap


async def test_tokens_are_held_while_a_request_is_under_way_and_no_longer(
    store_url: str, tokenizer: Tokenizer
) -> None:
    async with Model([STALL]) as model, World(store_url, tokenizer, model.url) as world:
        client = world.client(json.dumps(BODY).encode()).start()
        await becomes(lambda: model.heard, "the request")
        assert world.metric("weir_tokens_held") == RESERVED
        client.leave()
        await world.quiet()
        assert world.metric("weir_tokens_held") == 0


async def test_how_far_the_clocks_are_apart_is_known_once_the_ledger_has_told_the_time(
    store_url: str, tokenizer: Tokenizer
) -> None:
    async with Model([STALL]) as model, World(store_url, tokenizer, model.url) as world:
        await becomes(lambda: world.metric("weir_clock_skew_seconds"), "a word of the clocks")
        # They are one machine's; ms taken for s, or a time since the machine's start, would be far off.
        assert world.metric("weir_clock_skew_seconds") < 60
