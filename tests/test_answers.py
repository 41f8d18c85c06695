"""Answers: what a client sees in every situation there is, in the words and fields of OpenAI's API."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from service.domain.tokens import Tokenizer
from service.settings import Secret, Settings
from tests.world import (
    CALLER,
    CUT,
    DONE,
    END,
    KEY,
    LIMITED,
    LOGGED,
    STALL,
    STREAM,
    TOKENS,
    VALIDATED,
    Client,
    Model,
    Words,
    World,
    becomes,
    piece,
    whole,
)

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
BODY = json.dumps(CHAT).encode()
USED = whole(b'{"usage":{"prompt_tokens":8,"completion_tokens":100}}')  # 108, as was reserved

OURS = "weir_" + "k" * 43
DISABLED = "weir_" + "d" * 43
BOUND = "weir_" + "b" * 43  # to one model
UPSTREAM_KEY = "sk-upstream-" + "0123456789" * 3

Built = Callable[..., World]


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode()), (b"content-type", b"application/json")]


def limited(**policy: Any) -> list[Any]:
    one = {"name": "minute", "per": ["credential"], "limit": 120, "window": "1m", **policy}
    return [{"rate-limit-ai-tokens": {"policies": [{k: v for k, v in one.items() if v is not None}]}}]


@pytest.fixture
def virtual(tmp_path: Path) -> Mapping[str, Any]:
    """What makes a world of virtual keys."""
    file = tmp_path / "keys.yaml"
    keys = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "id": name, **more}
        for key, name, more in (
            (OURS, "team-a", {}),
            (DISABLED, "team-b", {"disabled": True}),
            (BOUND, "team-c", {"models": ["gpt-4o-mini*"]}),
        )
    ]
    file.write_text(json.dumps({"keys": keys}))
    settings = Settings(
        digest_key=Secret("a digest key of the tests"),
        keys_file=file,
        openai_api_key=Secret(UPSTREAM_KEY),
    )
    return {"settings": settings, "authentication": "virtual-keys"}


@pytest.fixture
def world(store_url: str, tokenizer: Tokenizer) -> Built:
    def make(upstream: str, **how: Any) -> World:
        return World(store_url, tokenizer, upstream, **how)

    return make


# The table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A situation, and what the client sees."""

    name: str
    status: int
    type: str | None = None  # of the error; None where there is none of ours
    code: str | None = None
    param: str | None = None
    fields: Mapping[str, str | None] = field(default_factory=dict)  # None: it must not be there
    says: str = ""  # within the message
    body: bytes | Sequence[bytes | None] = BODY
    how: Mapping[str, Any] = field(default_factory=dict)  # the client asks
    words: Words = (whole(b"{}"),)
    keys: bool = False  # virtual ones
    world: Mapping[str, Any] = field(default_factory=dict)


BAD = "invalid_request_error"
CHALLENGE = {"www-authenticate": "Bearer"}
AND_CLOSE = {"connection": "close"}
HTML = {"kind": "text/html"}


def wrong(name: str, body: bytes, param: str | None = None, code: str | None = None, says: str = "") -> Row:
    return Row(name, 400, BAD, code, param, says=says, body=body)


def of_media(name: str, kind: bytes, encoding: bytes = b"identity") -> Row:
    headers = [CALLER[1], (b"content-type", kind), (b"content-encoding", encoding)]
    return Row(name, 415, BAD, how={"headers": headers})


# fmt: off
TABLE = [
    Row("all is well", 200),
    # The body.
    wrong("empty", b"", says="We could not parse the JSON body"),
    wrong("not JSON", b"{'model'}", says="line 1, column 2"),
    wrong("not an object", b"[1]", says="not an object"),
    wrong("a member twice", b'{"model":"a","model":"b"}', says="duplicate member 'model'"),
    wrong("NaN", b'{"model":"a","x":NaN}', says="NaN is not JSON"),
    wrong("too deep", b'{"model":"a","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", says="deeper than 64"),
    wrong("a lone surrogate", b'{"model":"a","x":"\\ud800"}', says="surrogate"),
    wrong("not UTF-8", b'{"model":"\xff"}', says="not UTF-8"),
    wrong("no model", b"{}", says="you must provide a model"),
    wrong("model of another type", b'{"model":1}', "model", "invalid_type"),
    wrong("n of 0", BODY.replace(b"{", b'{"n":0,', 1), "n", "integer_below_min_value"),
    wrong("n that is true", BODY.replace(b"{", b'{"n":true,', 1), "n", "invalid_type"),
    wrong("a cap of 0", BODY.replace(b"100", b"0"), "max_tokens", "integer_below_min_value"),
    wrong("a cap beyond all bounds", BODY.replace(b"100", b"9" * 20), "max_tokens",
          "integer_above_max_value"),
    wrong("a temperature that is none", BODY.replace(b"{", b'{"temperature":"hot",', 1), "temperature",
          "invalid_type"),
    wrong("a user too long", BODY.replace(b"{", b'{"user":"%b",' % (b"u" * 257), 1), "user",
          "string_above_max_length"),
    Row("one byte too many by its own account", 413, BAD, fields=AND_CLOSE, body=[None],
        how={"headers": [*CALLER, (b"content-length", b"101")]}, world={"max_body": "100B"}),
    Row("one byte too many when counted", 413, BAD, fields=AND_CLOSE, body=[b" " * 60, b" " * 41, None],
        world={"max_body": "100B"}),
    Row("a body that does not come", 408, BAD, fields=AND_CLOSE, body=[b"{", None],
        world={"timeout": "50ms"}),
    of_media("text", b"text/plain"),
    of_media("no type", b""),
    of_media("a compressed body", b"application/json", b"gzip"),
    # The caller.
    Row("no key", 401, BAD, fields=CHALLENGE, how={"headers": CALLER[2:]}),
    Row("no bearer", 401, BAD, fields=CHALLENGE, how={"headers": [(b"authorization", b"Basic eDp5")]}),
    Row("two keys", 400, BAD, says="more than one header 'authorization'",
        how={"headers": [*CALLER, (b"authorization", b"Bearer another")]}),
    Row("no virtual key", 401, BAD, fields=CHALLENGE, how={"headers": CALLER[2:]}, keys=True),
    Row("a key nobody knows", 401, BAD, "invalid_api_key", fields=CHALLENGE, keys=True,
        says="Incorrect API key provided: sk-ca****cdef"),
    Row("a disabled key", 403, "permission_error", how={"headers": bearer(DISABLED)}, keys=True),
    Row("a model that is not for this key", 403, "permission_error", "model_not_allowed", "model",
        how={"headers": bearer(BOUND)}, keys=True),
    Row("a virtual key", 200, how={"headers": bearer(OURS)}, keys=True),
    # The place.
    Row("another path", 404, BAD, how={"path": "/v1/embeddings"}, says="Invalid URL (POST /v1/embeddings)"),
    Row("a path below", 404, BAD, how={"path": "/v1/chat/completions/x"}),
    Row("a slash at the end", 404, BAD, how={"path": "/v1/chat/completions/"}),
    Row("the root", 404, BAD, how={"path": "/", "method": "GET"}),
    Row("another method", 404, BAD, how={"method": "GET"}, says="Invalid URL (GET /v1/chat/completions)"),
    Row("another method of the models", 404, BAD, how={"path": "/v1/models", "method": "DELETE"}),
    Row("one model", 404, BAD, how={"path": "/v1/models/gpt-4o", "method": "GET"}),
    # The state of publication.
    Row("a draft", 404, BAD, world={"lifecycle": "DRAFT"}, says="not published"),
    Row("retired", 410, BAD, world={"lifecycle": "RETIRED"}, says="retired"),
    Row("deprecated", 200, fields={"deprecation": "true", "sunset": None},
        world={"lifecycle": "DEPRECATED"}),
    Row("deprecated and refused", 401, BAD,
        fields={"deprecation": "@1767225600", "sunset": "Thu, 01 Oct 2026 00:00:00 GMT"},
        how={"headers": CALLER[2:]},
        world={"lifecycle": "DEPRECATED", "deprecated": "2026-01-01", "sunset": "2026-10-01"}),
    # Upstream.
    Row("upstream's HTML", 502, "server_error", words=[whole(b"<html>", status=503, **HTML)],
        says="The upstream answered 503."),
    Row("upstream's JSON of another kind", 502, "server_error",
        words=[whole(b'{"error":"down"}', status=500)]),
    Row("upstream broke", 502, "server_error", words=[CUT]),
    Row("upstream is too slow", 504, "server_error", "timeout", words=[STALL], world={"timeout": "50ms"}),
    Row("upstream refuses our key", 502, "server_error", words=[whole(b"{}", status=401)], keys=True,
        how={"headers": bearer(OURS)}, says="refused the gateway's key"),
    Row("upstream refuses the caller's key", 401, words=[whole(b"{}", status=401)]),
    Row("upstream has no such model", 404, words=[whole(b"{}", status=404)]),
    # The limits.
    Row("it can never fit", 429, "tokens", "rate_limit_exceeded",
        fields={"x-should-retry": "false", "retry-after": None, "retry-after-ms": None,
                "x-ratelimit-limit-tokens": "50", "x-ratelimit-remaining-tokens": "50",
                "x-ratelimit-reset-tokens": "0s"},
        world={"request": limited(limit=50)},
        says="Request too large for gpt-4o on total tokens per min (policy minute): Limit 50, Requested 108"),
]
# fmt: on


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name.replace(" ", "-"))
async def test_a_client_sees(row: Row, world: Built, virtual: Mapping[str, Any]) -> None:
    how = {"request": [VALIDATED, LIMITED], **(virtual if row.keys else {}), **row.world}
    async with Model(row.words) as model, world(model.url, **how) as built:
        client = await built.client(row.body, **row.how).ask()
    assert client.status == row.status
    assert client.ended
    for name, value in row.fields.items():
        assert client.field(name) == value
    assert re.fullmatch("req_[0-9a-f]{32}", client.field("x-request-id") or "")
    if row.type is not None:
        assert client.field("content-type") == "application/json"
        said = {name: client.error[name] for name in ("type", "code", "param")}
        assert said == {"type": row.type, "code": row.code, "param": row.param}
        assert row.says in client.error["message"]
    (record,) = built.records("exchange.response")
    assert record["id"] == client.field("x-request-id")
    assert record["status"] == row.status


# Limits -------------------------------------------------------------------------------------------


async def refused(world: Built, flow: Sequence[Any]) -> Client:
    """The second of two requests of 108 tokens."""
    async with Model([USED]) as model, world(model.url, request=flow) as built:
        assert (await built.client(BODY).ask()).status == 200
        await built.quiet()
        client = await built.client(BODY).ask()
        assert len(model.heard) == 1
    assert client.status == 429
    return client


def waits(client: Client, *, seconds: float) -> None:
    """`retry-after` is `retry-after-ms` rounded up; it is as long as computed, or what has drained less."""
    wait, whole_seconds = int(client.field("retry-after-ms") or 0), int(client.field("retry-after") or 0)
    assert seconds * 1000 - 5000 <= wait <= seconds * 1000
    assert (whole_seconds - 1) * 1000 < wait <= whole_seconds * 1000


async def test_a_429_says_how_long_to_wait_in_openais_words(world: Built) -> None:
    client = await refused(world, limited())
    waits(client, seconds=(108 + 108 - 120) * 60 / 120)
    assert client.field("x-should-retry") is None
    assert client.error["type"] == "tokens"
    assert client.error["code"] == "rate_limit_exceeded"
    assert re.fullmatch(
        r"Rate limit reached for gpt-4o on total tokens per min \(policy minute\): Limit 120, Used 10\d, "
        r"Requested 108\. Please try again in 4[78](\.\d+)?s\.",
        client.error["message"],
    )
    assert client.field("x-ratelimit-limit-tokens") == "120"
    assert client.field("x-ratelimit-remaining-tokens") in ("12", "13", "14")
    assert re.fullmatch(r"5[34](\.\d+)?s", client.field("x-ratelimit-reset-tokens") or "")
    assert client.field("ratelimit-policy") == '"minute";q=120;qu="total-tokens";w=60'
    assert re.fullmatch(r'"minute";r=1[234];t=5[34]', client.field("ratelimit") or "")


async def test_a_wait_of_more_than_a_minute_is_told_and_not_recommended(world: Built) -> None:
    client = await refused(world, limited(window="10m"))
    waits(client, seconds=(108 + 108 - 120) * 600 / 120)
    assert client.field("x-should-retry") == "false"
    assert client.error["code"] == "rate_limit_exceeded"


async def test_a_quota_that_is_spent_is_called_one(world: Built) -> None:
    client = await refused(world, limited(window="1d", algorithm="fixed-window"))
    assert client.error["type"] == client.error["code"] == "insufficient_quota"
    assert client.field("x-should-retry") == "false"
    assert int(client.field("retry-after") or 0) > 0


async def test_a_refusal_of_requests_is_called_one(world: Built) -> None:
    client = await refused(world, limited(count="requests", limit=1))
    waits(client, seconds=60)
    assert client.error["type"] == "requests"
    assert client.field("x-ratelimit-limit-requests") == "1"
    assert client.field("x-ratelimit-remaining-requests") == "0"
    assert client.field("x-ratelimit-limit-tokens") is None


async def test_too_many_at_once_are_refused_and_told_to_come_back_soon(world: Built) -> None:
    flow = limited(count="concurrent-requests", limit=1, window=None)
    async with Model([STALL]) as model, world(model.url, request=flow) as built:
        first = built.client(BODY).start()
        await becomes(lambda: model.heard)
        client = await built.client(BODY).ask()
        assert client.status == 429
        assert client.error["type"] == "requests"
        assert "on concurrent requests (policy minute): Limit 1, Used 1" in client.error["message"]
        assert int(client.field("retry-after") or 0) >= 1
        first.leave()
        await first.over()


async def test_an_answer_tells_what_is_left_of_the_tightest_policies(world: Built) -> None:
    flow = [
        {
            "rate-limit-ai-tokens": {
                "remaining-header": True,
                "policies": [
                    {**TOKENS, "name": "wide"},
                    {**TOKENS, "name": "narrow", "limit": 5000},
                    {**TOKENS, "name": "shadow", "limit": 10, "enforce": False},
                    {**TOKENS, "name": "calls", "limit": 30, "count": "requests"},
                ],
            }
        }
    ]
    async with Model([USED]) as model, world(model.url, request=flow) as built:
        client = await built.client(BODY).ask()
    assert client.status == 200
    assert client.field("x-ratelimit-limit-tokens") == "5000"
    assert client.field("x-ratelimit-remaining-tokens") == str(5000 - 108)
    assert re.fullmatch(r"(\d+h)?(\d+m)?[\d.]+s", client.field("x-ratelimit-reset-tokens") or "")
    assert client.field("x-ratelimit-limit-requests") == "30"
    assert client.field("x-ratelimit-remaining-requests") == "29"
    assert client.field("x-weir-remaining-tokens") == str(5000 - 108)
    names = re.findall('"([a-z]+)";q=', client.field("ratelimit-policy") or "")
    assert names == ["wide", "narrow", "shadow", "calls"]


async def test_the_list_of_models_is_known_to_no_limit(world: Built) -> None:
    listed = whole(b'{"object":"list","data":[]}')
    async with Model([listed]) as model, world(model.url, request=limited(limit=1)) as built:
        for _ in range(3):
            client = await built.client(method="GET", path="/v1/models").ask()
            assert client.status == 200
            assert not [name for name, _ in client.fields if b"ratelimit" in name]
    assert [record["route"] for record in built.records("exchange.response")] == ["models"] * 3


async def test_the_header_step_changes_what_the_client_sees_of_every_answer(world: Built) -> None:
    step = {"header": {"set": {"x-id": "${request.id}"}, "remove": ["openai-version"]}}
    words = [whole(b"{}", fields="openai-version: 1\r\n")]
    async with Model(words) as model, world(model.url, response=[step, LOGGED]) as built:
        for path in ("/v1/chat/completions", "/v1/nothing"):
            client = await built.client(BODY, path=path).ask()
            assert client.field("x-id") == client.field("x-request-id")
            assert client.field("openai-version") is None


async def test_a_worker_that_is_on_its_way_out_says_so_to_whom_it_answers(world: Built) -> None:
    async with Model([whole(b"{}")]) as model, world(model.url) as built:
        assert (await built.client(BODY).ask()).field("connection") is None
        built.worker.draining = True
        assert (await built.client(BODY).ask()).field("connection") == "close"


# Secrets ------------------------------------------------------------------------------------------


def stored(url: str) -> str:
    """Every key of the store with everything it holds."""
    with redis.Redis.from_url(url) as store:
        return repr([(key, store.hgetall(key)) for key in store.scan_iter(_type="hash")])


@pytest.mark.parametrize("keys", [False, True], ids=["pass-through", "virtual keys"])
async def test_no_key_is_found_in_logs_metrics_answers_or_the_ledger(
    keys: bool, world: Built, virtual: Mapping[str, Any], store_url: str
) -> None:
    """A caller's key, in every place where a caller can put it, however the exchange ends."""
    key = OURS if keys else KEY
    log = {"log": {"bodies": "full", "user": "clear"}}
    how = {"request": [log, LIMITED, VALIDATED], "response": [log], **(virtual if keys else {})}
    careless = {"user": key, "metadata": {"key": key}, "messages": [{"role": "user", "content": f"{key}!"}]}
    usual = {**CHAT, **careless}
    bodies = [usual, {**usual, "stream": True}, {**usual, "temperature": key}, {**usual, "model": key}]
    all_words = (
        [whole(b'{"choices":[{"message":{"content":"%b"}}]}' % key.encode())],
        [STREAM + piece(DONE) + END],
        [CUT],
    )
    seen = []
    for words in all_words:
        async with Model(words) as model, world(model.url, **how) as built:
            for body in bodies:
                text = json.dumps(body).encode()
                client = built.client(text, headers=bearer(key), query=b"k=" + key.encode())
                seen.append(repr((await client.ask()).fields))
            await built.quiet()
            seen.append(stored(store_url))
            seen.append(built.tools.metrics.page()[0].decode())
        seen.append(built.written())
    everything = "\n".join(seen)
    assert "exchange.request" in everything
    assert "w1:" in everything
    assert "weir_requests_total" in everything
    assert key not in everything
    assert key[8:] not in everything
    assert UPSTREAM_KEY not in everything
    if keys:
        assert dict(model.fields)[b"authorization"] == b"Bearer " + UPSTREAM_KEY.encode()
