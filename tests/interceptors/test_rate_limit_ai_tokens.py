"""The step `rate-limit-ai-tokens`: what it reserves for whom, what it lets pass, and what it is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from service.adapters.keyring import new_key
from service.adapters.ledger import scripts
from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.wire import open_wire
from service.adapters.threads import INLINE
from service.domain.address import proxies
from service.domain.api import DefinitionError
from service.domain.exchange import Exchange
from service.domain.learning import COLD
from service.domain.policies import PolicyOptions
from service.domain.subject import subject_key
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import PATTERNS
from service.domain.usage import Estimate
from service.settings import Secret, Settings
from tests.world import (
    CALLER,
    CLOSE,
    DONE,
    END,
    KEY,
    PATIENCE,
    STALL,
    STREAM,
    TOKENS,
    Client,
    Model,
    Options,
    World,
    becomes,
    decoded,
    piece,
    whole,
)

PROMPT = 8  # tokens of "Hi"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
USED = whole(b'{"usage":{"prompt_tokens":9,"completion_tokens":7}}')

Built = Callable[..., World]


@pytest.fixture
def world(store_url: str, tokenizer: Tokenizer) -> Built:
    def make(upstream: str, *policies: Mapping[str, Any], **options: Any) -> World:
        named = {name.replace("_", "-"): value for name, value in options.items()}
        step = {"rate-limit-ai-tokens": {"policies": policies or [TOKENS], **named}}
        return World(store_url, tokenizer, upstream, request=[step])

    return make


def asking(**members: Any) -> bytes:
    return json.dumps({**CHAT, **members}).encode()


async def asked(built: World, **members: Any) -> Client:
    client = await built.client(asking(**members)).ask()
    await built.quiet()
    return client


# What is estimated and reserved -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "completion"),
    [
        ({}, 1024),
        ({"max_tokens": None}, 1024),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 6}, 7),
        ({"n": 3}, 3 * 1024),
        ({"n": 3, "max_tokens": 5}, 15),
    ],
    ids=["nothing", "null", "old cap", "new cap", "both", "both, the old larger", "n", "n with a cap"],
)
async def test_the_completion_is_estimated_as_declared_for_each_choice(
    members: dict[str, Any], completion: int, world: Built
) -> None:
    async with Model([USED]) as model, world(model.url) as built:
        await asked(built, **members)
        assert built.exchanges[0].estimate == Estimate(PROMPT, completion)
        assert built.exchanges[0].notes["reserved"] == PROMPT + completion


async def test_where_nothing_is_declared_the_default_is_the_operators(world: Built) -> None:
    async with Model([USED]) as model, world(model.url, default_completion=50) as built:
        await asked(built, n=2)
        assert built.exchanges[0].estimate == Estimate(PROMPT, 100)


# How it is counted --------------------------------------------------------------------------------


class Abacus:
    """Encodings that make a token of each word, and remember how many characters were counted where."""

    def __init__(self) -> None:
        self.here = 0  # on the event loop
        self.elsewhere = 0  # in threads
        self.tokenizer = Tokenizer(dict.fromkeys(PATTERNS, self.encode))
        self._loop = threading.get_ident()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        if threading.get_ident() == self._loop:
            self.here += len(text)
        else:
            self.elsewhere += len(text)
        return [0] * len(text.split())

    def forget(self) -> None:
        """Begin to count anew what is counted where."""
        self.here = self.elsewhere = 0


def counting(store_url: str, abacus: Abacus, upstream: str, **options: Any) -> World:
    """A world that counts by this abacus."""
    step = {"rate-limit-ai-tokens": {"policies": [TOKENS]}}
    return World(store_url, abacus.tokenizer, upstream, request=[step], max_body="1MB", **options)


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def estimated(built: World) -> int:
    """The prompt of the last exchange, as estimated."""
    estimate = built.exchanges[-1].estimate
    assert estimate is not None
    return estimate.prompt


@pytest.mark.parametrize("words", [10_000, 20_000], ids=["read at once", "read elsewhere"])
async def test_a_long_prompt_is_counted_off_the_event_loop_to_the_same_number(
    words: int, store_url: str
) -> None:
    abacus, messages = Abacus(), turns("word " * words)
    async with Model([USED]) as model, counting(store_url, abacus, model.url) as built:
        await asked(built, messages=messages)
        assert abacus.here < INLINE < 5 * words == abacus.elsewhere
        assert estimated(built) == abacus.tokenizer.prompt({"messages": messages}, "gpt-4o").tokens


async def test_what_is_short_is_counted_where_it_stands(store_url: str) -> None:
    abacus = Abacus()
    async with Model([USED]) as model, counting(store_url, abacus, model.url) as built:
        await asked(built, messages=turns("word " * 1000, "word"))
        assert (abacus.here, abacus.elsewhere) == (5_004, 0)


@pytest.mark.parametrize("words", [10_000, 20_000], ids=["read at once", "read elsewhere"])
async def test_a_conversation_whose_past_is_remembered_costs_what_is_new_in_it(
    words: int, store_url: str
) -> None:
    abacus, past = Abacus(), "word " * words
    async with Model([USED]) as model, counting(store_url, abacus, model.url) as built:
        await asked(built, messages=turns(past))
        before = estimated(built)
        abacus.forget()
        await asked(built, messages=turns(past, "one word more"))
        assert (abacus.here, abacus.elsewhere) == (len("one word more"), 0)
        assert estimated(built) == before + 3 + 3 + 1
        characters, requests = "weir_counted_characters_total", "weir_counted_requests_total"
        assert built.metric(characters, how="cached") == len(past)
        assert built.metric(characters, how="counted") == len(past) + len("one word more")
        assert built.metric(requests) == built.metric(requests, how="counted") == 2


@pytest.mark.parametrize(
    ("content", "exact"),
    [("Hi", True), ([{"type": "image_url", "image_url": {"url": "https://pictures.example/1"}}], False)],
    ids=["text", "an image that nobody has seen"],
)
async def test_the_log_says_of_an_estimate_that_it_was_not_counted_as_the_model_does(
    content: Any, exact: bool, world: Built
) -> None:
    async with Model([USED]) as model, world(model.url) as built:
        await asked(built, messages=[{"role": "user", "content": content}])
    (record,) = built.records("exchange.response")
    assert record.get("estimate_exact", True) is exact


def said(content: str, *, stream: bool) -> bytes:
    """An answer of that content, without usage."""
    if not stream:
        return whole(json.dumps({"choices": [{"message": {"content": content}}]}).encode())
    texts = [content[at : at + 500] for at in range(0, len(content), 500)]
    events = [json.dumps({"choices": [{"delta": {"content": text}}]}).encode() for text in texts]
    return STREAM + b"".join(piece(b"data: %b\n\n" % event) for event in events) + piece(DONE) + END


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("words", "long"), [(1_000, False), (10_000, True), (40_000, True)])
async def test_a_long_answer_without_usage_is_counted_off_the_event_loop(
    words: int, long: bool, stream: bool, store_url: str
) -> None:
    abacus = Abacus()
    answer = [said("word " * words, stream=stream)]
    async with Model(answer) as model, counting(store_url, abacus, model.url) as built:
        await asked(built, stream=stream)
        usage = built.exchanges[0].usage
        assert usage is not None
        assert (usage.completion, usage.source) == (words, "local")
        assert abacus.here + abacus.elsewhere == len("Hi") + 5 * words
        assert abacus.elsewhere == (5 * words if long else 0)


async def test_what_a_long_stream_produces_is_counted_off_the_event_loop_while_it_flows(
    store_url: str,
) -> None:
    abacus, goes_on = Abacus(), asyncio.Event()
    settings = Settings(digest_key=Secret("a digest key of the tests"), lease=0.3)
    answer = said("word " * 10_000, stream=True)
    first, rest = answer.partition(piece(DONE))[0], answer.removeprefix(STREAM)
    async with (
        Model([first, goes_on, rest]) as model,
        counting(store_url, abacus, model.url, settings=settings) as built,
    ):
        client = built.client(asking(stream=True, max_tokens=5)).start()
        await becomes(lambda: abacus.elsewhere == 50_000)
        async with asyncio.timeout(PATIENCE):
            while await built.charged(TOKENS) != {"tokens": PROMPT + 10_000}:  # noqa: ASYNC110 - the store tells
                await asyncio.sleep(0.01)
        goes_on.set()
        await client.over()
        await built.quiet()
        usage = built.exchanges[0].usage
        assert usage is not None
        assert usage.completion == 20_000
        assert await built.charged(TOKENS) == {"tokens": PROMPT + 20_000}


COUNTS = ["total-tokens", "prompt-tokens", "completion-tokens", "requests"]


async def test_each_policy_charges_what_it_counts_and_keeps_what_was_used(world: Built) -> None:
    policies = [{**TOKENS, "name": count, "count": count} for count in COUNTS]
    policies.append({"name": "together", "per": ["credential"], "limit": 9, "count": "concurrent-requests"})
    answered = asyncio.Event()
    async with Model([answered, USED]) as model, world(model.url, *policies) as built:
        client = built.client(asking(max_tokens=100)).start()
        await becomes(lambda: model.heard)
        charged = await built.charged(*policies)
        assert charged == dict(zip([*COUNTS, "together"], [108, 8, 100, 1, 1], strict=True))
        answered.set()
        await client.over()
        await built.quiet()
        charged = await built.charged(*policies)
        assert charged == dict(zip([*COUNTS, "together"], [16, 9, 7, 1, 0], strict=True))


async def test_prompt_only_reserves_nothing_for_the_completion_and_charges_it_all_the_same(
    world: Built,
) -> None:
    policy = {**TOKENS, "reserve": "prompt-only"}
    answered = asyncio.Event()
    async with Model([answered, USED]) as model, world(model.url, policy) as built:
        client = built.client(asking(max_tokens=100)).start()
        await becomes(lambda: model.heard)
        assert await built.charged(policy) == {"tokens": PROMPT}
        answered.set()
        await client.over()
        await built.quiet()
        assert await built.charged(policy) == {"tokens": 16}


@pytest.mark.parametrize(("used", "kind", "tokens"), [(7, "returned", 92), (200, "overrun", 101)])
async def test_what_was_estimated_too_high_or_too_low_is_counted(
    used: int, kind: str, tokens: int, world: Built
) -> None:
    words = [whole(b'{"usage":{"prompt_tokens":9,"completion_tokens":%d}}' % used)]
    async with Model(words) as model, world(model.url) as built:
        await asked(built, max_tokens=100)
        assert built.metric("weir_tokens_total", kind="reserved") == PROMPT + 100
        assert built.metric("weir_tokens_total", kind=kind) == tokens
        assert (await built.charged(TOKENS))["tokens"] == 9 + used


# Who is charged -----------------------------------------------------------------------------------

PER_USER = {**TOKENS, "per": ["credential", "user"]}


@pytest.mark.parametrize(
    ("members", "user"),
    [
        ({"user": "alice"}, "alice"),
        ({"safety_identifier": "alice"}, "alice"),
        ({"user": "alice", "safety_identifier": "bob"}, "alice"),
        ({"user": "", "safety_identifier": "bob"}, "bob"),
        ({"user": " Alice "}, " Alice "),
        ({"user": "\u00e9"}, "\u00e9"),
        ({"user": "e\u0301"}, "e\u0301"),
        ({"user": "u" * 256}, "u" * 256),
        ({}, ""),
        ({"user": None}, ""),
    ],
    ids=[
        "user",
        "safety identifier",
        "both",
        "an empty user",
        "spaces and case",
        "composed",
        "decomposed",
        "long",
        "nobody",
        "null",
    ],
)
async def test_a_user_is_charged_under_the_name_as_it_is_written(
    members: dict[str, Any], user: str, world: Built
) -> None:
    async with Model([USED]) as model, world(model.url, PER_USER) as built:
        await asked(built, **members)
        assert await built.charged(PER_USER, user=user) == {"tokens": 16}


async def test_users_credentials_and_models_have_accounts_of_their_own(world: Built) -> None:
    policies = [
        {**TOKENS, "name": "-".join(per), "per": per} for per in (["user"], ["model"], ["credential"])
    ]
    policies.append({**TOKENS, "name": "all", "per": []})
    async with Model([USED]) as model, world(model.url, *policies) as built:
        for user, name in (("alice", "gpt-4o"), ("bob", "gpt-4o"), ("alice", "gpt-5")):
            await asked(built, user=user, model=name)
        for policy, seen, charged in (
            (policies[0], {"user": "alice"}, 32),
            (policies[0], {"user": "bob"}, 16),
            (policies[0], {"user": "carol"}, 0),
            (policies[1], {"model": "gpt-4o"}, 32),
            (policies[1], {"model": "gpt-5"}, 16),
            (policies[2], {}, 48),
            (policies[2], {"key": "sk-other"}, 0),
            (policies[3], {}, 48),
        ):
            assert list((await built.charged(policy, **seen)).values()) == [charged]


async def test_who_names_no_user_is_refused_where_the_operator_says_so(world: Built) -> None:
    async with Model([USED]) as model, world(model.url, missing_user="refuse") as built:
        client = await asked(built)
        assert client.status == 400
        assert client.error["param"] == "user"
        assert client.error["code"] == "missing_required_parameter"
        assert (await asked(built, user="alice")).status == 200
        assert len(model.heard) == 1


@pytest.mark.parametrize(
    ("user", "code"), [("u" * 257, "string_above_max_length"), ("a\x00b", "invalid_value")]
)
async def test_a_user_that_no_log_could_bear_is_refused(user: str, code: str, world: Built) -> None:
    async with Model() as model, world(model.url) as built:
        client = await asked(built, user=user)
        assert client.status == 400
        assert client.error["param"] == "user"
        assert client.error["code"] == code


# To whom a policy applies --------------------------------------------------------------------------


async def test_the_api_addresses_and_headers_have_accounts_of_their_own(
    store_url: str, tokenizer: Tokenizer
) -> None:
    policies = [
        {**TOKENS, "name": name, "per": [dimension]}
        for name, dimension in (("api", "api"), ("ip", "ip"), ("team", "header:X-Team"))
    ]
    step = {"rate-limit-ai-tokens": {"policies": policies}}
    settings = Settings(digest_key=Secret("a digest key of the tests"), trusted_proxies=proxies("127.0.0.1"))
    headers = [(b"x-team", b"red"), (b"x-forwarded-for", b"198.51.100.1, 203.0.113.9")]
    async with (
        Model([USED]) as model,
        World(store_url, tokenizer, model.url, request=[step], settings=settings) as built,
    ):
        for added in (headers, [], headers):
            client = await built.client(asking(), headers=[*CALLER, *added]).ask()
            assert client.status == 200
        await built.quiet()
        for others, charged in (
            ({"api": "Chat", "ip": "203.0.113.9", "header:x-team": "red"}, [48, 32, 32]),
            ({"api": "Other", "ip": "127.0.0.1", "header:x-team": ""}, [0, 16, 16]),
            ({"api": "Chat", "ip": "198.51.100.1", "header:x-team": "blue"}, [48, 0, 0]),
        ):
            assert list((await built.charged(*policies, **others)).values()) == charged


async def test_a_header_that_is_too_long_to_be_a_subject_is_named(world: Built) -> None:
    async with Model() as model, world(model.url, {**TOKENS, "per": ["header:x-team"]}) as built:
        client = await built.client(asking(), headers=[*CALLER, (b"x-team", b"r" * 257)]).ask()
        assert client.status == 400
        assert (client.error["param"], client.error["code"]) == ("x-team", "string_above_max_length")


async def test_only_the_policies_that_apply_charge_and_are_told(world: Built) -> None:
    policies = [
        {**TOKENS, "name": "all"},
        {**TOKENS, "name": "gpt", "when": {"model": "gpt*"}},
        {**TOKENS, "name": "streams", "when": {"stream": True, "user": "alice"}},
    ]
    async with Model([USED]) as model, world(model.url, *policies) as built:
        client = await asked(built)
        assert client.field("ratelimit-policy") is not None
        assert "streams" not in str(client.field("ratelimit-policy"))
        await asked(built, model="o3")
        assert await built.charged(*policies) == {"all": 32, "gpt": 16, "streams": 0}


async def test_a_request_to_which_no_policy_applies_is_let_through_untouched(world: Built) -> None:
    policy = {**TOKENS, "limit": 1, "when": {"model": "o3*"}}
    async with Model([USED]) as model, world(model.url, policy, cap_completion=True) as built:
        client = await asked(built, user="alice")
        assert client.status == 200
        assert not [name for name, _ in client.fields if b"ratelimit" in name]
        assert built.exchanges[0].user == "alice"
        assert built.reservations() == []
        (request,) = model.heard
        assert request.endswith(asking(user="alice"))


# Plans --------------------------------------------------------------------------------------------


async def test_a_key_has_the_policies_of_its_plan(
    store_url: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    keys = {plan: new_key(f"of-{plan}") for plan in ("none", "pro", "staff")}
    lines = [line if plan == "none" else f"{line[:-1]}, plan: {plan}}}" for plan, (_, line) in keys.items()]
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n" + "\n".join(lines))
    settings = Settings(
        digest_key=Secret("a digest key of the tests"), keys_file=file, openai_api_key=Secret("sk-of-ours")
    )
    plans = {
        "pro": {"tokens": {"limit": 5000}, "default-completion": 2000},
        "staff": {"tokens": None},
    }
    step = {"rate-limit-ai-tokens": {"policies": [{**TOKENS, "limit": 1100}]}}
    async with (
        Model([USED]) as model,
        World(
            *(store_url, tokenizer, model.url),
            request=[step],
            settings=settings,
            plans=plans,
            authentication="virtual-keys",
        ) as built,
    ):
        limits = {}
        for plan, (key, _) in keys.items():
            headers = [(b"authorization", b"Bearer " + key.encode()), (b"content-type", b"application/json")]
            client = await built.client(asking(), headers=headers).ask()
            assert client.status == 200
            limits[plan] = client.field("x-ratelimit-limit-tokens")
        await built.quiet()
        assert limits == {"none": "1100", "pro": "5000", "staff": None}
        estimates = [exchange.estimate for exchange in built.exchanges]
        assert estimates == [Estimate(PROMPT, 1024), Estimate(PROMPT, 2000), None]


# The cap ------------------------------------------------------------------------------------------


async def test_the_default_is_by_model(world: Built) -> None:
    async with (
        Model([USED]) as model,
        world(model.url, default_completion={"o3*": 5, "*": 7}) as built,
    ):
        for name in ("o3-mini", "gpt-4o"):
            await asked(built, model=name)
        assert [one.estimate.completion for one in built.exchanges if one.estimate] == [5, 7]


@pytest.mark.parametrize(
    ("members", "added"),
    [
        ({}, b'"max_completion_tokens":50,'),
        ({"n": 2}, b'"max_completion_tokens":50,'),
        ({"max_tokens": 9}, b""),
        ({"max_completion_tokens": 99}, b""),
    ],
)
async def test_the_cap_goes_upstream_where_none_is_declared_and_is_what_is_reserved(
    members: dict[str, Any], added: bytes, world: Built
) -> None:
    options = {"default_completion": 50, "cap_completion": True}
    async with Model([USED]) as model, world(model.url, **options) as built:
        await asked(built, **members)
        (request,) = model.heard
        assert request.endswith(b"\r\n\r\n{" + added + asking(**members)[1:])
        declared = members.get("max_tokens") or members.get("max_completion_tokens") or 50
        assert built.exchanges[0].notes["reserved"] == PROMPT + declared * members.get("n", 1)


async def test_two_steps_that_cap_put_one_cap_upstream(store_url: str, tokenizer: Tokenizer) -> None:
    options = {"policies": [TOKENS], "cap-completion": True, "default-completion": 50}
    flow = [{"rate-limit-ai-tokens": options}] * 2
    async with Model([USED]) as model, World(store_url, tokenizer, model.url, request=flow) as built:
        assert (await asked(built)).status == 200
        (request,) = model.heard
        assert request.count(b"max_completion_tokens") == 1


# What is learned ----------------------------------------------------------------------------------


async def test_once_a_models_completions_are_known_no_more_than_that_is_reserved(world: Built) -> None:
    async with Model([USED]) as model, world(model.url, {**TOKENS, "limit": 10**6}) as built:
        for _ in range(COLD + 1):
            await asked(built)
        first, *_, last = built.exchanges
        assert (first.notes["reserved"], last.notes["reserved"]) == (PROMPT + 1024, PROMPT + 7)
        assert last.estimate == Estimate(PROMPT, 1024, learned=7)
        assert built.metric("weir_tokens_total", kind="reserved") == COLD * 1032 + 15
        await asked(built, max_tokens=3)
        assert built.exchanges[-1].estimate == Estimate(PROMPT, 3, learned=3)
        await asked(built, model="gpt-4o-mini")
        assert built.exchanges[-1].estimate == Estimate(PROMPT, 1024)


async def test_nothing_is_learned_of_what_did_not_come_to_its_end(world: Built) -> None:
    broken = whole(b'{"usage":{"prompt_tokens":9,"completion_tokens":7}}')[:-5]
    async with Model([broken, CLOSE]) as model, world(model.url, {**TOKENS, "limit": 10**6}) as built:
        for _ in range(COLD + 1):
            assert (await asked(built)).status == 502
        assert built.exchanges[-1].estimate == Estimate(PROMPT, 1024)


# Refusing, in earnest and in shadow ---------------------------------------------------------------


async def test_a_refusal_changes_nothing(world: Built, store_url: str) -> None:
    """Not with the policies that would have granted it either."""

    def everything() -> list[bytes | None]:
        with redis.Redis.from_url(store_url) as store:
            return [store.dump(key) for key in sorted(store.scan_iter(_type="hash"))]

    tight = {**TOKENS, "name": "tight", "limit": 120}
    async with Model([USED]) as model, world(model.url, PER_USER, tight) as built:
        await asked(built, max_tokens=100, user="alice")
        before = everything()
        assert before
        client = await asked(built, max_tokens=100, user="alice")
        assert client.status == 429
        assert "(policy tight)" in client.error["message"]
        assert everything() == before
        assert built.metric("weir_refusals_total", policy="tight", reason="limit", enforced="true") == 1
    record = built.records("exchange.response")[-1]
    assert record["policy"] == "tight"
    assert record["used"]["prompt"] == 0


async def test_a_policy_in_shadow_says_that_it_would_refuse_and_does_not(world: Built) -> None:
    shadow = {**TOKENS, "name": "shadow", "limit": 5, "enforce": False}
    async with Model([USED]) as model, world(model.url, TOKENS, shadow) as built:
        client = await asked(built)
        assert client.status == 200
        assert client.field("x-ratelimit-limit-tokens") == str(TOKENS["limit"])
        assert await built.charged(shadow) == {"shadow": 16}
        assert built.metric("weir_refusals_total", policy="shadow", reason="limit", enforced="false") == 1
    (record,) = built.records("exchange.response")
    assert record["shadow"] == ["shadow"]
    assert "policy" not in record


async def test_what_can_never_fit_is_counted_as_such(world: Built) -> None:
    async with Model() as model, world(model.url, {**TOKENS, "limit": 5}) as built:
        assert (await asked(built)).status == 429
        assert built.metric("weir_refusals_total", policy="tokens", reason="never") == 1


async def test_burst_is_accepted_beyond_the_limit(world: Built) -> None:
    """10 % of 1,000 leave room for 1,032 and not for 1,132."""
    async with Model([USED]) as model, world(model.url, {**TOKENS, "limit": 1000, "burst": "10%"}) as built:
        assert (await asked(built)).status == 200
    async with Model([USED]) as model, world(model.url, {**TOKENS, "limit": 1000, "burst": "10%"}) as built:
        assert (await asked(built, max_tokens=1100)).status == 429


async def test_a_caller_that_an_operator_has_blocked_is_told_so_and_it_is_counted(
    world: Built, store_url: str
) -> None:
    async with Model([USED]) as model, world(model.url, PER_USER) as built:
        values = {"credential": "key-" + built.tools.digest(KEY)[:16], "user": "alice"}
        wire = open_wire(store_url, scripts.load(), connections=1)
        await Subjects(wire).block(subject_key(("credential", "user"), values, built.tools.digest), 2**52)
        await wire.close()
        client = await asked(built, user="alice")
        assert (client.status, client.error["code"]) == (403, "subject_blocked")
        assert (await asked(built, user="bob")).status == 200
        assert built.metric("weir_refusals_total", policy="tokens", reason="blocked", enforced="true") == 1


async def test_what_was_decided_is_logged_with_the_numbers_it_was_decided_on(
    world: Built, store_url: str
) -> None:
    tokens = {**PER_USER, "limit": 1000}
    cost = {
        "name": "cost",
        "per": [],
        "limit": 9,
        "window": "365d",
        "count": "cost",
        "algorithm": "fixed-window",
    }
    cost["weights"] = {"*": {"prompt": 0.25, "completion": 0}}
    async with Model([USED]) as model, world(model.url, tokens, cost) as built:
        await asked(built, max_tokens=80, user="alice")
        values = {"credential": "key-" + built.tools.digest(KEY)[:16], "user": "alice"}
        wire = open_wire(store_url, scripts.load(), connections=1)
        subject = subject_key(("credential", "user"), values, built.tools.digest)
        account = PolicyOptions(**tokens).policy().account
        await Subjects(wire).allow(subject, account, 2**52, limit=50_000, capacity=60_500)
        await wire.close()
        await asked(built, max_tokens=80, user="alice")
    granted, refused = built.records("exchange.response")
    assert granted["charged"] == {"tokens": 88, "cost": 2}
    assert "capacity" not in granted
    assert refused["charged"] == {"tokens": 16, "cost": 2.25}
    assert refused["capacity"] == {"tokens": 60.5}
    assert 0 <= refused["decided"] - granted["decided"] < 60_000


async def test_what_asks_for_no_completion_is_not_limited(world: Built) -> None:
    async with Model([whole(b"{}")]) as model, world(model.url, missing_user="refuse") as built:
        client = await built.client(method="GET", path="/v1/models").ask()
        assert client.status == 200
        assert built.exchanges[0].estimate is None


async def test_what_one_limiter_granted_is_given_back_where_the_next_refuses(
    store_url: str, tokenizer: Tokenizer
) -> None:
    tight = {**TOKENS, "name": "tight", "limit": 5}
    flow = [{"rate-limit-ai-tokens": {"policies": [one]}} for one in (TOKENS, tight)]
    async with Model([USED]) as model, World(store_url, tokenizer, model.url, request=flow) as built:
        assert (await asked(built)).status == 429
        assert built.reservations() == []
        assert await built.charged(TOKENS) == {"tokens": 0}


async def test_where_nobody_can_say_what_was_used_what_was_reserved_stands(
    store_url: str, tokenizer: Tokenizer
) -> None:
    """An exchange whose reckoning had failed was free."""

    async def lose_the_usage(exchange: Exchange) -> None:
        async def lose() -> None:
            exchange.usage = None

        exchange.at_end(lose)

    flow = [Options(request=lose_the_usage), {"rate-limit-ai-tokens": {"policies": [TOKENS]}}]
    async with Model([USED]) as model, World(store_url, tokenizer, model.url, request=flow) as built:
        await asked(built, max_tokens=100)
        assert await built.charged(TOKENS) == {"tokens": 108}


# The ledger is away -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "status", "degraded"), [(3, 503, None), (2, 200, "lenient, shadow")], ids=["strict", "lenient"]
)
async def test_one_enforced_policy_that_refuses_without_the_ledger_is_enough(
    count: int, status: int, degraded: str | None, tokenizer: Tokenizer
) -> None:
    lenient = {**TOKENS, "name": "lenient", "on-ledger-failure": "allow"}
    policies = [lenient, {**TOKENS, "name": "shadow", "enforce": False}, {**TOKENS, "name": "strict"}]
    flow = [{"rate-limit-ai-tokens": {"policies": policies[:count]}}]
    with EmbeddedStore(server_program()) as store:
        store.stop()
        async with Model([USED]) as model, World(store.url, tokenizer, model.url, request=flow) as built:
            client = await asked(built)
            assert client.status == status
            assert client.field("x-weir-degraded") == degraded
            store.start()
            await becomes(lambda: not built.tools.ledger.pending)


# A worker that died -------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_lost", "left"), [("charge", 108), ("release", 0)])
async def test_what_a_dead_worker_reserved_ends_with_its_lease(
    on_lost: str, left: int, store_url: str, tokenizer: Tokenizer
) -> None:
    """A worker whose life never began renews nothing, as a dead one."""
    step = {"rate-limit-ai-tokens": {"policies": [TOKENS], "on-lost": on_lost}}
    settings = Settings(digest_key=Secret("a digest key of the tests"), lease=0.05)
    free = whole(b'{"usage":{"prompt_tokens":0,"completion_tokens":0}}')
    async with Model([STALL]) as silent, Model([free]) as model:
        dead = World(store_url, tokenizer, silent.url, request=[step], settings=settings)
        client = dead.client(asking(max_tokens=100)).start()
        await becomes(lambda: silent.heard)
        (lost,) = dead.reservations()
        async with World(store_url, tokenizer, model.url, request=[step]) as built:
            while lost in built.reservations():
                await asked(built)
            assert await built.charged(TOKENS) == {"tokens": left}
        async with dead:
            client.leave()
            await client.over()


# Options ------------------------------------------------------------------------------------------

LEAST = {"name": "a", "per": ["user"], "limit": 1, "window": "1m"}
MISSING = "expected a value, but it is missing"
REST = "for all other models"


def step(**options: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {"policies": [LEAST], **named}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, f".policies: {MISSING}"),
        (step(policies=[]), ".policies: expected at least one policy, not none"),
        (step(policies={}), ".policies: expected a valid array, not an object"),
        (
            step(policies=[{**LEAST, "name": f"a{n}"} for n in range(65)]),
            ".policies: expected to have at most 64 items after validation, not 65",
        ),
        (
            step(policies=[LEAST, LEAST]),
            ".policies[1].name: expected a name that no policy before has, not a",
        ),
        (step(remaining_header="yes"), '.remaining-header: expected a valid boolean, not "yes"'),
        (
            {**step(), "remaining_header": True},
            ".remaining_header: expected one of cap-completion, default-completion, missing-user, on-lost, "
            'policies, remaining-header (did you mean "remaining-header"?)',
        ),
        (step(missing_user="drop"), ".missing-user: expected 'share' or 'refuse', not \"drop\""),
        (step(default_completion=0), ".default-completion: expected greater than or equal to 1, not 0"),
        (
            step(default_completion=10**9 + 1),
            ".default-completion: expected less than or equal to 1000000000, not 1000000001",
        ),
        (step(default_completion=1.5), ".default-completion: expected a valid integer, not 1.5"),
        (step(default_completion=True), ".default-completion: expected a valid integer, not true"),
        (step(on_lost="keep"), ".on-lost: expected 'charge' or 'release', not \"keep\""),
        (step(default_completion={"o3*": 5}), f'.default-completion: expected "*" as the last glob, {REST}'),
        (step(cap_completion="yes"), '.cap-completion: expected a valid boolean, not "yes"'),
        (
            step(cap_completion=True, policies=[{**LEAST, "reserve": "learned"}]),
            ".policies[0].reserve: expected declared beside cap-completion: true, not learned",
        ),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_an_option_that_is_none_is_refused_with_its_place_and_what_was_expected(
    options: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        decoded([{"rate-limit-ai-tokens": options}], [])
    (error,) = refused.value.errors
    place, _, rest = error.partition(": x-weir.flows.request[0].rate-limit-ai-tokens")
    assert place.startswith("test.yaml:1:")
    assert rest == said


def test_it_takes_part_in_the_request_flow_alone() -> None:
    with pytest.raises(DefinitionError, match="expected in no other flow than request"):
        decoded([], [{"rate-limit-ai-tokens": {"policies": [LEAST]}}])
