"""weir quota: what an operator sees of a subject, and what he does to it, holds at once for every worker."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from service.adapters.ledger import Ledger, Reservation, scripts
from service.adapters.ledger.embedded import server_program
from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.wire import open_wire
from service.app import digester
from service.domain.policies import PolicyOptions
from service.domain.policy import Claim, Policy, Verdict
from service.domain.subject import subject_key
from service.domain.tokens import Tokenizer
from service.domain.usage import Usage
from service.quota.top import Highest, Place
from tests.adapters.ledger.servers import Nodes
from tests.commands import Said, ask_command, forget_settings
from tests.world import CALLS, KEY, TOGETHER, TOKENS, Model, World, becomes, definition, whole

DIGEST_KEY = "a digest key of the tests"  # the worlds' own
DIGEST = digester(DIGEST_KEY)
CREDENTIAL = f"key-{DIGEST(KEY)[:16]}"
WHO = f"credential={CREDENTIAL}"
DAYS = 86_400_000  # ms

LONG = {"limit": 1000, "window": "30d", "algorithm": "fixed-window"}  # nothing drains while a test runs
BY_KEY = {"name": "by-key", "per": ["credential"], **LONG}
BY_USER = {"name": "by-user", "per": ["user", "credential"], **LONG, "burst": "10%"}
STREAMS = {"name": "streams", "per": ["credential", "user"], "limit": 8, "count": "concurrent-requests"}
SHADOW = {"name": "shadow", "per": [], **LONG, "enforce": False}
WEIGHTS = {"*": {"prompt": 0.001, "completion": 0.001}}
COST = {
    "name": "cost",
    "per": ["model"],
    "limit": 0.05,
    "window": "month",
    "count": "cost",
    "weights": WEIGHTS,
}
ALL = (BY_KEY, BY_USER, STREAMS, SHADOW, COST)


class Operator:
    """Asks `weir quota`, in another thread, as a command has an event loop of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, folder: Path):
        self._capsys = capsys
        self._folder = folder
        self.environment = environment

    def deploy(self, *policies: Mapping[str, Any], **weir: Any) -> None:
        """Let these be the policies of the definition, and `weir` further members of it."""
        file = self._folder / "definition.json"
        file.write_text(definition([{"rate-limit-ai-tokens": {"policies": policies}}], [], **weir))
        self.environment.setenv("WEIR_DEFINITION", str(file))

    def give_plan(self, id: str, plan: str) -> None:
        """Let a credential have a plan."""
        file = self._folder / "keys.yaml"
        file.write_text(f"keys:\n- {{sha256: {'a' * 64}, id: {id}, plan: {plan}}}\n")
        self.environment.setenv("WEIR_KEYS_FILE", str(file))

    async def __call__(self, *words: str) -> Said:
        return await asyncio.to_thread(ask_command, self._capsys, "quota", *words)


@pytest.fixture
def quota(
    store_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Operator:
    forget_settings(monkeypatch)
    monkeypatch.setenv("REDIS_URL", store_url)
    monkeypatch.setenv("WEIR_DIGEST_KEY", DIGEST_KEY)
    operator = Operator(capsys, monkeypatch, tmp_path)
    operator.deploy(*ALL)
    return operator


class Gateway:
    """A worker's ledger, which knows nothing of what the operator does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def ask(self, tokens: int, *policies: Mapping[str, Any], **values: str) -> Verdict:
        """Reserve, and leave it open."""
        return (await self.open(tokens, *policies, **values))[0]

    async def open(
        self, tokens: int, *policies: Mapping[str, Any], **values: str
    ) -> tuple[Verdict, Reservation]:
        """Reserve so many tokens, or one request, of a subject with these policies."""
        values = {"credential": CREDENTIAL, "user": "alice", "model": "gpt-4o"} | values
        made = [made_of(policy) for policy in policies]
        claims = [
            Claim(one, subject_key(one.per, values, DIGEST), tokens * one.unit if one.window else one.unit)
            for one in made
        ]
        reservation = Reservation(claims)
        return await self._ledger.reserve(reservation), reservation

    async def use(self, tokens: int, *policies: Mapping[str, Any], **values: str) -> None:
        """Reserve, and settle: nothing is open afterwards."""
        verdict, reservation = await self.open(tokens, *policies, **values)
        assert verdict.granted
        assert await self._ledger.settle(reservation, Usage(tokens, 0, "provider")) == "settled"

    async def settle(self, reservation: Reservation, tokens: int) -> None:
        assert await self._ledger.settle(reservation, Usage(tokens, 0, "provider")) == "settled"


def made_of(policy: Mapping[str, Any]) -> Policy:
    return PolicyOptions(**{name.replace("_", "-"): value for name, value in policy.items()}).policy()


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Gateway]:
    ledger = Ledger(open_wire(url, scripts.load()), deadline=5.0)
    await ledger.open()
    try:
        yield Gateway(ledger)
    finally:
        await ledger.close()


@pytest.fixture
async def gateway(store_url: str) -> AsyncIterator[Gateway]:
    async with working(store_url) as gateway:
        yield gateway


def digest_of(*words: str) -> str:
    """A subject's digest, as everything shows it."""
    named = sorted(word.partition("=")[::2] for word in words)
    return "{" + DIGEST(json.dumps([list(pair) for pair in named])) + "}"


# -- show ------------------------------------------------------------------------------------------------


async def test_what_a_real_request_is_charged_is_shown(
    quota: Operator, store_url: str, tokenizer: Tokenizer
) -> None:
    quota.deploy(TOKENS, CALLS, TOGETHER)
    answer = {"usage": {"prompt_tokens": 300, "completion_tokens": 41, "total_tokens": 341}}
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello!"}],"max_tokens":500}'
    held = asyncio.Event()
    model = Model([held, whole(json.dumps(answer).encode())])
    async with model, World(store_url, tokenizer, model.url) as world:
        client = world.client(body).start()
        await becomes(lambda: model.heard, "the request")
        during = await quota("show", WHO, "--json")
        held.set()
        await client.over()
        await world.quiet()
        after = await quota("show", "--json", WHO)
    assert client.status == 200
    assert (during.json["entries"], after.json["entries"]) == (1, 0)
    assert (during.policy("together")["charged"], after.policy("together")["charged"]) == (1, 0)
    assert during.policy("tokens")["charged"] > 500
    assert after.policy("tokens") | {"full_in_ms": 0} == {
        "policy": "tokens",
        "count": "total-tokens",
        "enforced": True,
        "charged": 341,
        "limit": 1_000_000,
        "capacity": 1_000_000,
        "remaining": 999_659,
        "window": "30d",
        "full_in_ms": 0,
        "overridden_until": None,
    }
    assert 0 < after.policy("tokens")["full_in_ms"] <= 30 * DAYS


async def test_people_see_a_table(quota: Operator, gateway: Gateway) -> None:
    await gateway.ask(600, BY_USER, STREAMS)
    await quota("set", WHO, "user=alice", "by-user", "5000")
    said = await quota("show", "user=alice", WHO)
    assert (said.code, said.complaints) == (0, "")
    first, head, by_user, streams = said.text.splitlines()
    assert first == f"{digest_of(WHO, 'user=alice')}, reservations and markers: 1"
    assert head.split("  ")[0] == "policy"
    assert re.fullmatch(
        r"by-user  600      5000   4400       30d     \d+h\d+m\S+  set until \d{4}-\d\d-\d\dT\S+Z, else 1000",
        by_user,
    )
    assert streams.split() == ["streams", "1", "8", "7", "-", "-"]
    shadow = await quota("show", "everyone")
    assert shadow.text.splitlines()[2].split() == [
        "shadow",
        "0",
        "1000",
        "1000",
        "30d",
        "0s",
        "not",
        "enforced",
    ]


async def test_costs_are_decimal_and_calendars_are_named(quota: Operator, gateway: Gateway) -> None:
    claim = Claim(made_of(COST), subject_key(("model",), {"model": "gpt-4o"}, DIGEST), 12_345)
    reservation = Reservation([claim])
    await gateway._ledger.reserve(reservation)
    said = await quota("show", "model=gpt-4o", "--json")
    assert said.policy("cost")["charged"] == 0.012345
    assert said.policy("cost")["remaining"] == 0.037655
    assert said.policy("cost")["window"] == "month from 1 (UTC)"
    assert (await quota("set", "model=gpt-4o", "cost", "0.100001")).code == 0
    said = await quota("show", "model=gpt-4o")
    assert said.text.splitlines()[2].split()[:4] == ["cost", "0.012345", "0.100001", "0.087656"]


async def test_the_plan_of_a_credential_is_looked_up_and_can_be_said(quota: Operator) -> None:
    plans = {
        "pro": {"by-key": {"limit": 5000}, "by-user": None, "streams": None},
        "free": {"by-key": {"limit": 7}},
    }
    quota.deploy(*ALL, authentication="virtual-keys", plans=plans)
    quota.give_plan("ann", "pro")
    said = await quota("show", "--json", "credential=ann")
    assert (said.json["plan"], said.policy("by-key")["limit"]) == ("pro", 5000)
    assert (await quota("show", "--json", "credential=bob", "--plan", "")).json["plan"] == ""
    said = await quota("show", "--json", "credential=ann", "--plan", "free")
    assert (said.json["plan"], said.policy("by-key")["limit"]) == ("free", 7)
    assert (await quota("show", "credential=ann")).text.startswith(
        f"{digest_of('credential=ann')}, plan pro, "
    )
    gone = await quota("show", "credential=ann", "user=alice")
    assert gone.code == 1
    assert (
        "of plan pro is per (credential=…, or everyone, or model=…), not credential=… user=…"
        in gone.complaints
    )


async def test_nobody_is_blocked_in_place_of_a_key_whose_id_was_mistyped(
    quota: Operator, store_url: str
) -> None:
    quota.deploy(BY_KEY, authentication="virtual-keys", plans={"pro": {}})
    quota.give_plan("ann", "pro")
    said = await quota("block", "credential=anne")
    assert (said.code, said.text) == (1, "")
    assert 'expected the id of a key of the keys file after credential= (did you mean "ann"?)' in (
        said.complaints
    )
    with redis.Redis.from_url(store_url) as store:
        assert store.dbsize() == 0
    assert (await quota("block", "credential=anne", "--plan", "pro")).code == 0  # one that was there once


async def test_the_limits_of_no_plan_are_not_shown_for_those_of_a_plan_that_cannot_be_looked_up(
    quota: Operator,
) -> None:
    quota.deploy(BY_KEY, authentication="virtual-keys", plans={"pro": {"by-key": {"limit": 5000}}})
    said = await quota("show", "credential=ann")
    assert (said.code, said.text) == (2, "")
    assert said.complaints.startswith("WEIR_KEYS_FILE: expected, as the gateways have it")


@pytest.mark.parametrize(
    ("per", "word", "value"),
    [
        ("user", "user=a,b=c d", "a,b=c d"),
        ("user", "user=", ""),
        ("ip", "ip=::ffff:10.0.0.1", "10.0.0.1"),
        ("header:x-team", "header:X-Team= blå ", "blÃ¥"),  # as bytes of HTTP are read
        ("api", "api=Chat", "Chat"),
    ],
)
async def test_a_value_is_what_the_gateway_makes_of_it(
    quota: Operator, gateway: Gateway, per: str, word: str, value: str
) -> None:
    policy = {**BY_KEY, "per": [per]}
    quota.deploy(policy)
    await gateway.ask(77, policy, **{per: value})
    assert (await quota("show", "--json", word)).policy("by-key")["charged"] == 77


# -- set -------------------------------------------------------------------------------------------------


async def test_another_limit_is_obeyed_at_once_and_can_be_taken_back(
    quota: Operator, gateway: Gateway
) -> None:
    assert (await gateway.ask(1000, BY_USER)).granted
    assert not (await gateway.ask(200, BY_USER)).granted
    said = await quota("set", WHO, "user=alice", "by-user", "1100")
    assert re.fullmatch(r"\{.{22}\}: the limit of by-user is 1100 until \d{4}-\d\d-\d\dT.*Z\n", said.text)
    verdict = await gateway.ask(200, BY_USER)  # 1100 and the burst of 10 %
    assert verdict.granted
    assert verdict.limits == {0: (1_100_000, 1_210_000)}
    assert not (await gateway.ask(11, BY_USER)).granted
    shown = (await quota("show", "--json", WHO, "user=alice")).policy("by-user")
    assert (shown["limit"], shown["capacity"], shown["remaining"]) == (1100, 1210, 0)
    assert shown["overridden_until"]
    assert (await gateway.ask(1000, BY_USER, user="bob")).granted
    assert not (await gateway.ask(200, BY_USER, user="bob")).granted
    said = await quota("set", WHO, "user=alice", "by-user", "default")
    assert (said.code, said.text) == (0, f"{digest_of(WHO, 'user=alice')}: by-user has its own limit again\n")
    assert not (await gateway.ask(1, BY_USER)).granted
    assert (await quota("show", "--json", WHO, "user=alice")).policy("by-user")["overridden_until"] is None


async def test_another_limit_ends_by_itself(quota: Operator, gateway: Gateway, store_url: str) -> None:
    await quota("set", WHO, "by-key", "10")
    assert not (await gateway.ask(11, BY_KEY)).granted
    wire = open_wire(store_url, scripts.load())
    subjects, claim = Subjects(wire), Claim(made_of(BY_KEY), f"w1:{digest_of(WHO)}", 0)
    now = (await subjects.peek([claim])).now
    await subjects.allow(claim.subject, claim.policy.account, now + 1, limit=10_000, capacity=10_000)
    async with asyncio.timeout(10):
        while (await subjects.peek([claim])).now <= now:
            pass
    assert (await gateway.ask(11, BY_KEY)).granted
    shown = (await quota("show", "--json", WHO)).policy("by-key")
    assert (shown["limit"], shown["overridden_until"]) == (1000, None)
    await wire.close()


@pytest.mark.parametrize(
    ("verb", "lasts", "days"),
    [("set", (), 30), ("set", ("--for", "7d"), 7), ("block", (), 3650), ("block", ("--for", "24h"), 1)],
)
async def test_a_rule_lasts_as_long_as_is_said(
    quota: Operator, store_url: str, verb: str, lasts: tuple[str, ...], days: int
) -> None:
    with redis.Redis.from_url(store_url) as store:
        before = store.time()
        said = await quota(verb, WHO, *(("by-key", "10") if verb == "set" else ()), *lasts)
        after = store.time()
    assert said.code == 0
    wire = open_wire(store_url, scripts.load())
    field = made_of(BY_KEY).account if verb == "set" else ""
    until = (await Subjects(wire).written(f"w1:{digest_of(WHO)}", [field])).rules[field].until
    await wire.close()
    earliest, latest = (seconds * 1000 + micros // 1000 + days * DAYS for seconds, micros in (before, after))
    assert earliest <= until <= latest


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        ("by-key", "0"),
        ("by-key", "-5"),
        ("by-key", "1.5"),
        ("by-key", "1e3"),
        ("by-key", str(10**12 + 1)),
        ("bursting", str(10**12)),
        ("cost", "0.0000001"),
        ("cost", "0"),
        ("cost", str(10**9 + 1)),
    ],
)
async def test_a_limit_is_one_that_the_definition_could_have(
    quota: Operator, policy: str, limit: str
) -> None:
    quota.deploy(*ALL, {**BY_KEY, "name": "bursting", "burst": "1000%"})
    said = await quota("set", "model=gpt-4o" if policy == "cost" else WHO, policy, limit)
    assert (said.code, said.text) == (2, "")
    kind, most = "whole number", 10**12
    if policy == "cost":
        kind, most = "number of at most 6 decimals", 10**9
    elif policy == "bursting":
        most = (2**52 - 1) // 11_000
    expected = f"LIMIT: expected a {kind} above 0 and up to {most}, or default, not {limit!r}\n"
    assert said.complaints == expected


# -- reset -----------------------------------------------------------------------------------------------


async def test_a_reset_in_flight_leaves_what_is_open_open(quota: Operator, gateway: Gateway) -> None:
    verdict, reservation = await gateway.open(900, BY_USER, STREAMS, BY_KEY)
    assert verdict.granted
    said = await quota("reset", WHO, "user=alice")
    assert said.text == f"{digest_of(WHO, 'user=alice')}: nothing is charged with by-user\n"
    shown = await quota("show", "--json", WHO, "user=alice")
    assert shown.json["entries"] == 1
    assert (shown.policy("by-user")["charged"], shown.policy("streams")["charged"]) == (0, 1)
    assert (await quota("show", "--json", WHO)).policy("by-key")["charged"] == 900
    await gateway.settle(reservation, 100)  # 800 are given back to nobody
    shown = await quota("show", "--json", WHO, "user=alice")
    assert (shown.policy("by-user")["charged"], shown.policy("streams")["charged"]) == (0, 0)
    assert (await quota("show", "--json", WHO)).policy("by-key")["charged"] == 100


async def test_one_policy_alone_is_reset(quota: Operator, gateway: Gateway) -> None:
    other = {**BY_KEY, "name": "other"}
    quota.deploy(BY_KEY, other, {**STREAMS, "per": ["credential"]})
    await gateway.ask(500, BY_KEY, other)
    assert (await quota("reset", WHO, "other")).code == 0
    shown = await quota("show", "--json", WHO)
    assert (shown.policy("by-key")["charged"], shown.policy("other")["charged"]) == (500, 0)
    refused = await quota("reset", WHO, "by-key", "streams")
    assert (refused.code, refused.text) == (2, "")
    assert "expected none that counts concurrent-requests, as streams does" in refused.complaints
    assert (await quota("show", "--json", WHO)).policy("by-key")["charged"] == 500


# -- block -----------------------------------------------------------------------------------------------


async def test_who_is_blocked_gets_a_403_until_he_is_not(
    quota: Operator, store_url: str, tokenizer: Tokenizer
) -> None:
    quota.deploy(TOKENS, CALLS, TOGETHER)
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello!"}]}'
    model = Model([whole(b"{}")])
    async with model, World(store_url, tokenizer, model.url) as world:
        assert (await world.client(body).ask()).status == 200
        said = await quota("block", WHO)
        assert said.text.startswith(f"{digest_of(WHO)}: blocked until 20")
        client = await world.client(body).ask()
        assert (client.status, client.error["code"]) == (403, "subject_blocked")
        assert (await quota("show", "--json", WHO)).json["blocked_until"] in said.text
        assert "BLOCKED until 20" in (await quota("show", WHO)).text
        said = await quota("unblock", WHO)
        assert (said.code, said.text) == (0, f"{digest_of(WHO)}: not blocked\n")
        assert (await world.client(body).ask()).status == 200
        assert (await quota("show", "--json", WHO)).json["blocked_until"] is None


# -- digests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["w1:%s", "%s"])
async def test_a_digest_will_do_where_the_ledger_has_accounts_of_it(
    quota: Operator, gateway: Gateway, form: str
) -> None:
    digest = digest_of(WHO, "user=alice")
    name = form % digest
    unknown = await quota("show", name)
    assert (unknown.code, unknown.text) == (1, "")
    assert unknown.complaints == f"SUBJECT: expected a digest that the ledger has accounts of, not {digest}\n"
    await gateway.ask(500, BY_USER, STREAMS)
    shown = await quota("show", "--json", name)
    assert (shown.json["subject"], shown.json["plan"]) == (digest, None)
    assert [one["policy"] for one in shown.json["policies"]] == ["by-user", "streams"]
    assert (await quota("set", name, "by-user", "20")).code == 0
    assert not (await gateway.ask(1, BY_USER)).granted
    assert (await quota("reset", name)).code == 0
    assert (await gateway.ask(1, BY_USER)).granted
    assert (await quota("block", name)).code == 0
    assert (await gateway.ask(1, BY_USER)).blocked_until
    assert (await quota("unblock", name)).code == 0
    assert (await gateway.ask(1, BY_USER)).granted


async def test_whose_account_a_digest_has_is_told_by_its_limit(quota: Operator, gateway: Gateway) -> None:
    plans = {"pro": {"by-key": {"limit": 5000}}}
    quota.deploy(*ALL, authentication="virtual-keys", plans=plans)
    await gateway.ask(10, {**BY_KEY, "limit": 5000}, credential="ann")
    await gateway.ask(10, BY_KEY, credential="bob")
    ann, bob = digest_of("credential=ann"), digest_of("credential=bob")
    assert (await quota("show", "--json", ann)).policy("by-key")["limit"] == 5000
    assert (await quota("show", "--json", bob)).policy("by-key")["limit"] == 1000
    assert (await quota("show", "--json", bob, "--plan", "pro")).policy("by-key")["limit"] == 5000


# -- top -------------------------------------------------------------------------------------------------


async def test_the_top_are_those_with_the_highest_shares(quota: Operator, gateway: Gateway) -> None:
    for number in range(12):
        await gateway.use(number * 10 + 5, BY_USER, BY_KEY, SHADOW, user=f"u{number}")
    said = await quota("top", "--json", "--limit", "3")
    assert said.json["looked_at"] == 14
    assert said.json["subjects"] == [
        {
            "subject": subject,
            "policy": policy,
            "count": "total-tokens",
            "charged": charged,
            "limit": 1000,
            "share": charged / 1000,
        }
        for subject, policy, charged in [
            *sorted([(digest_of(WHO), "by-key", 720), (digest_of(), "shadow", 720)], reverse=True),
            (digest_of(WHO, "user=u11"), "by-user", 115),
        ]
    ]
    said = await quota("top", "--policy", "by-user", "--limit", "2")
    assert said.text.splitlines() == [
        "subject                   policy   charged  limit  share",
        f"{digest_of(WHO, 'user=u11')}  by-user  115      1000   11.5%",
        f"{digest_of(WHO, 'user=u10')}  by-user  105      1000   10.5%",
        "looked at 14 subjects",
    ]
    assert "u11" not in (await quota("top")).text.replace(digest_of(WHO, "user=u11"), "")


async def test_the_top_heeds_other_limits_and_what_has_drained(
    quota: Operator, gateway: Gateway, store_url: str
) -> None:
    bucket = {**BY_KEY, "name": "bucket", "algorithm": "leaky-bucket", "window": "1s"}
    before, behind = ({**BY_USER, "name": name, "limit": 2000} for name in ("before", "behind"))
    quota.deploy(before, BY_USER, behind, bucket)
    await gateway.use(500, before, BY_USER, behind, user="alice")
    await gateway.use(20, BY_USER, user="bob")
    await quota("set", WHO, "user=bob", "by-user", "25")
    await gateway.use(10, BY_USER, user="carol")
    await quota("set", WHO, "user=carol", "by-user", "10", "--for", "1s")
    await gateway.ask(999, bucket)
    with redis.Redis.from_url(store_url) as store:  # a second must pass by the server's own clock
        seconds, micros = store.time()
        await becomes(lambda: store.time() > (seconds + 1, micros + 1000), "the next second")
    said = await quota("top", "--json")
    shares = [(one["subject"], one["limit"], one["share"]) for one in said.json["subjects"]]
    assert shares == [
        (digest_of(WHO, "user=bob"), 25, 0.8),
        (digest_of(WHO, "user=alice"), 1000, 0.5),
        (digest_of(WHO, "user=carol"), 1000, 0.01),
    ]
    assert said.json["looked_at"] == 4


@pytest.mark.parametrize(
    "policy",
    [
        {**BY_KEY, "algorithm": "leaky-bucket", "limit": 100_000},
        {**BY_KEY, "algorithm": "sliding-window"},
        {**BY_KEY, "algorithm": "fixed-window"},
        {**BY_KEY, "algorithm": None, "window": "year", "timezone": "Asia/Tokyo", "starts": "04-01"},
        {"name": "by-key", "per": ["credential"], "limit": 8, "count": "concurrent-requests"},
    ],
    ids=lambda policy: policy.get("algorithm") or policy.get("window", "concurrency"),
)
async def test_the_top_counts_as_the_ledger_does(
    quota: Operator, gateway: Gateway, policy: Mapping[str, Any]
) -> None:
    quota.deploy(policy)
    _, first = await gateway.open(500, policy)
    await gateway.ask(100, policy)  # so that there are low levels behind the account
    shown = (await quota("show", "--json", WHO)).policy("by-key")
    (top,) = (await quota("top", "--json")).json["subjects"]
    assert (top["charged"], top["limit"]) == (shown["charged"], shown["limit"])
    assert shown["charged"] == (2 if shown["count"] == "concurrent-requests" else 600)
    assert (await quota("show", WHO)).text.splitlines()[2].split()[1] == str(shown["charged"])
    await gateway.settle(first, 30)
    (top,) = (await quota("top", "--json")).json["subjects"]
    assert top["charged"] == (1 if shown["count"] == "concurrent-requests" else 130)


async def test_an_empty_ledger_has_no_top(quota: Operator, store_url: str) -> None:
    with redis.Redis.from_url(store_url) as store:
        store.zadd("w1:{workers}", {"worker": 1})
        store.hset("w1:{another}", "of-another-definition:abcd", b"?")
        store.hset("w2:{another}", made_of(BY_KEY).account, b"?")
    said = await quota("top", "--json")
    assert said.json == {"looked_at": 0, "subjects": []}
    assert (await quota("top")).text.splitlines()[-1] == "looked at 0 subjects"


async def test_more_subjects_than_go_in_one_batch_are_all_looked_at(
    quota: Operator, gateway: Gateway, store_url: str
) -> None:
    await gateway.use(10, BY_KEY)
    account = made_of(BY_KEY).account
    with redis.Redis.from_url(store_url) as store:
        written = store.hget(f"w1:{digest_of(WHO)}", account)
        with store.pipeline(transaction=False) as pipeline:
            for number in range(2999):
                pipeline.hset(f"w1:{{{number:022}}}", account, written)
            pipeline.execute()
    assert (await quota("top", "--json", "--limit", "1000")).json["looked_at"] == 3000


def test_no_more_is_held_than_is_asked_for() -> None:
    highest, policy = Highest(3), made_of(BY_KEY)
    for number in [*range(500), *range(500)]:
        highest.offer(Place(f"s{number}", policy, number, 1000))
        assert len(highest._heap) == len(highest._held) <= 3
    assert [place.subject for place in highest.places()] == ["s499", "s498", "s497"]


# -- a cluster -------------------------------------------------------------------------------------------


async def test_on_a_cluster_every_master_is_asked(quota: Operator, tmp_path: Path) -> None:
    nodes = Nodes(server_program(), tmp_path)
    try:
        await asyncio.to_thread(nodes.start)
        quota.environment.setenv("REDIS_URL", nodes.url)
        users = [f"u{number}" for number in range(12)]
        async with working(nodes.url) as gateway:
            for number, user in enumerate(users):
                await gateway.use(number + 1, BY_USER, user=user)
            keys = [f"w1:{digest_of(WHO, f'user={user}')}" for user in users]
            assert len({nodes.owner(key).port for key in keys}) == 3
            said = await quota("top", "--json", "--limit", "12")
            assert said.json["looked_at"] == 12
            assert [one["charged"] for one in said.json["subjects"]] == list(range(12, 0, -1))
            for number, user in enumerate(users):
                assert (await quota("set", WHO, f"user={user}", "by-user", "12")).code == 0
                shown = (await quota("show", "--json", WHO, f"user={user}")).policy("by-user")
                assert (shown["charged"], shown["limit"]) == (number + 1, 12)
                assert shown["overridden_until"]
            assert not (await gateway.ask(2, BY_USER, user="u11")).granted
            assert (await quota("reset", digest_of(WHO, "user=u11"))).code == 0
            assert (await gateway.ask(2, BY_USER, user="u11")).granted
    finally:
        nodes.close()


# -- what is wrongly asked -------------------------------------------------------------------------------

COMBINATIONS = "(credential=…, or credential=… user=…, or everyone, or model=…)"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["show", "user=alice"], 1, f"is per {COMBINATIONS}, not user=…"),
        (
            ["block", "everyone", "--plan", "pro"],
            2,
            "--plan: expected a plan of the definition (there is none)",
        ),
        (
            ["set", WHO, "by-kye", "5"],
            2,
            'POLICY: expected one of by-key, not "by-kye" (did you mean "by-key"?)',
        ),
        (["reset", WHO, "streams"], 2, "POLICY: expected one of by-key, not"),
        (
            ["top", "--policy", "by-kye"],
            2,
            "POLICY: expected one of by-key, by-user, streams, shadow, cost, not",
        ),
        (["show", WHO, WHO], 2, "SUBJECT: expected each dimension once"),
        (
            ["show", "alice"],
            2,
            "SUBJECT: expected everyone, a digest in braces, or name=value of each, not 'alice'",
        ),
        (["show", "=x"], 2, "SUBJECT: expected everyone, a digest in braces, or name=value"),
        (["show", f"{WHO},user=alice"], 2, "each further dimension is a word of its own"),
        (["show", f"credential={KEY}"], 2, "SUBJECT: expected the credential's id, as logs have it"),
        (["show", "ip=localhost"], 2, "SUBJECT: expected an address after ip=, not 'localhost'"),
        (["show", "api=Chatt"], 1, 'SUBJECT: expected "api=Chat"'),
        (["show", WHO, "by-key"], 2, "expected nothing after SUBJECT, not 'by-key'"),
        (["set", WHO], 2, "expected SUBJECT POLICY LIMIT"),
        (["set", WHO, "by-key", "5", "6"], 2, "expected SUBJECT POLICY LIMIT"),
        (
            ["set", WHO, "by-key", "5", "--for", "0s"],
            2,
            "expected a time such as 30m, 12h or 7d, up to 3650d",
        ),
        (["block", WHO, "--for", "3651d"], 2, "expected a time such as 30m, 12h or 7d, up to 3650d"),
        (["top", "--limit", "1001"], 2, "expected a whole number from 1 to 1000, not '1001'"),
        (["top", "--limit", "0"], 2, "expected a whole number from 1 to 1000, not '0'"),
        (["show"], 2, "the following arguments are required"),
        ([], 2, "COMMAND"),
    ],
)
async def test_what_is_wrongly_asked_is_told(
    quota: Operator, store_url: str, words: list[str], code: int, expected: str
) -> None:
    said = await quota(*words)
    assert (said.code, said.text) == (code, "")
    assert expected in said.complaints
    assert KEY not in said.complaints
    with redis.Redis.from_url(store_url) as store:
        assert store.dbsize() == 0


@pytest.mark.parametrize("missing", ["REDIS_URL", "WEIR_DIGEST_KEY"])
async def test_without_the_gateways_settings_nothing_can_be_asked(quota: Operator, missing: str) -> None:
    quota.environment.delenv(missing)
    said = await quota("show", WHO)
    assert (said.code, said.text) == (2, "")
    assert said.complaints.startswith(f"{missing}: expected")


async def test_a_ledger_that_is_away_is_told(quota: Operator, tmp_path: Path) -> None:
    quota.environment.setenv("REDIS_URL", f"unix://{tmp_path}/nobody")
    for words in (["show", WHO], ["top"], ["show", digest_of(WHO)], ["block", WHO]):
        said = await quota(*words)
        assert (said.code, said.text) == (1, "")
        assert said.complaints.startswith("the ledger is away: ")
        assert str(tmp_path) not in said.complaints


async def test_a_keys_file_that_the_definition_does_not_use_is_not_read(quota: Operator) -> None:
    quota.give_plan("ann", "a-plan-of-another-definition")
    assert (await quota("show", "--json", WHO)).json["plan"] == ""


async def test_a_bad_definition_or_keys_file_is_told(quota: Operator) -> None:
    quota.deploy({**BY_KEY, "limit": 0}, authentication="virtual-keys")
    said = await quota("show", WHO)
    assert (said.code, said.text) == (1, "")
    assert "expected a whole number from 1 to" in said.complaints
    quota.deploy(BY_KEY, authentication="virtual-keys")
    quota.give_plan("ann", "pro")
    said = await quota("show", "credential=ann")
    assert (said.code, said.text) == (1, "")
    assert "expected a plan of the definition" in said.complaints
