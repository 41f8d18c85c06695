"""A process that serves counts models as its definition says."""

from pathlib import Path

import aiohttp

from tests.programs import definition, serving, simulating

POLICY = {"name": "a", "per": ["credential"], "limit": 100_000, "window": "1m"}
COUNTING = {"llama-*": {"bytes-per-token": 2, "margin": "50%"}, "gpt-4o": {"margin": "100%"}}
FRAME = 7  # tokens of a message's frame, and of the reply's beginning
EXPECTED = {"llama-3": FRAME + 10 + 9, "gpt-4o": (FRAME + 3) * 2, "gpt-4.1": FRAME + 3}
BODY = {"messages": [{"role": "user", "content": "a" * 20}]}


async def test_a_gateway_counts_models_as_its_definition_says(tmp_path: Path) -> None:
    file = definition(tmp_path, POLICY, counting=COUNTING)
    with simulating() as url, serving("--definition", str(file), UPSTREAM_URL=url) as gateway:
        async with aiohttp.ClientSession(gateway.url, headers={"authorization": "Bearer sk-a"}) as session:
            for model, prompt in EXPECTED.items():
                async with session.post("/v1/chat/completions", json=BODY | {"model": model}) as answer:
                    assert answer.status == 200
                record = gateway.waiting_for("exchange.response", model=model)
                assert record["estimate"]["prompt"] == prompt
