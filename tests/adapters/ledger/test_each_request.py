"""What a request costs the server: one command before it is sent on, one when it was answered; by MONITOR."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.tokens import Tokenizer
from tests.world import DONE, END, LIMITED, STREAM, TOKENS, Client, Model, Words, World, piece, whole

SCRIPTS = {script.sha: script.name for script in lua.load()}
FORWARDED, ANSWERED, OVER = ("forwarded", "answered", "over")
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}'
PER_USER = {**TOKENS, "name": "per-user", "per": ["credential", "user"]}
EVERYONE = {**TOKENS, "name": "everyone", "per": []}


def asking(*, stream: bool) -> bytes:
    message = {"role": "user", "content": "Hi"}
    return json.dumps({"model": "gpt-4o", "messages": [message], "user": "bob", "stream": stream}).encode()


@contextmanager
def overheard(url: str) -> Iterator[list[str]]:
    """The commands that clients send, until one says that it is over.

    A script stands there by its name. The beats of the heart are left out, and the questions whether the
    server is there: a worker has one every few seconds, however many requests come.
    """
    heard: list[str] = []
    said: list[str] = []
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:

        def listen() -> None:
            command: dict[str, str]
            for command in monitor.listen():
                if command["client_type"] != "lua":
                    heard.append(_name(command))
                    if heard[-1] == OVER:
                        return

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        yield said
        listening.join(10)
    for name in heard:
        if name == "PING":
            while said and said[-1] in ("HELLO", "CLIENT"):  # over a connection of its own
                said.pop()
        elif name != "heartbeat":
            said.append(name)


def _name(command: Mapping[str, str]) -> str:
    verb, *rest = command["command"].split()
    if verb.upper() == "EVALSHA":
        return SCRIPTS[rest[0]]
    return rest[0] if verb.upper() == "ECHO" else verb.upper()


@pytest.mark.parametrize("policies", [[TOKENS], [PER_USER, EVERYONE, TOKENS]], ids=["one", "three subjects"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_one_command_goes_before_a_request_is_sent_on_and_one_after_it_was_answered(
    store: EmbeddedStore, tokenizer: Tokenizer, stream: bool, policies: list[dict[str, Any]]
) -> None:
    """A worker's first request too: it knows the time by then, and the scripts are there."""
    with redis.Redis.from_url(store.url) as direct:
        direct.ping()

        def tell(moment: str) -> None:
            direct.echo(moment)

        def ended(client: Client) -> bool:
            if client.ended:
                tell(ANSWERED)
            return False

        words: Words = [STREAM + piece(b"data: %b\n\n" % ANSWER + DONE) + END if stream else whole(ANSWER)]
        flow = [{"rate-limit-ai-tokens": {"policies": policies}}]
        async with (
            Model(words, notice=lambda: tell(FORWARDED)) as model,
            World(store.url, tokenizer, model.url, request=flow) as world,
        ):
            with overheard(store.url) as said:
                for _ in range(5):
                    client = await world.client(asking(stream=stream), stalling=ended).ask()
                    assert client.status == 200
                    await world.quiet()
                tell(OVER)
    once = ["reserve", FORWARDED, ANSWERED, "settle"]
    assert said == [*once * 5, OVER]


async def test_a_refusal_is_one_command(store: EmbeddedStore, tokenizer: Tokenizer) -> None:
    small = [{"rate-limit-ai-tokens": {"policies": [{**TOKENS, "limit": 1}]}}]
    with redis.Redis.from_url(store.url) as direct:
        direct.ping()
        async with Model() as model, World(store.url, tokenizer, model.url, request=small) as world:
            with overheard(store.url) as said:
                client = await world.client(asking(stream=False)).ask()
                assert client.status == 429
                await world.quiet()
                direct.echo(OVER)
    assert said == ["reserve", OVER]


async def test_what_is_not_limited_is_none(store: EmbeddedStore, tokenizer: Tokenizer) -> None:
    with redis.Redis.from_url(store.url) as direct:
        direct.ping()
        async with (
            Model([whole(b"{}")]) as model,
            World(store.url, tokenizer, model.url, request=[LIMITED]) as world,
        ):
            with overheard(store.url) as said:
                await world.client(method="GET", path="/v1/models").ask()
                await world.quiet()
                direct.echo(OVER)
    assert said == [OVER]
