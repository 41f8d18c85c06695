"""Every field that the log can have is in the table of deploy/README.md, and nothing else is."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.adapters.ledger import scripts
from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.wire import open_wire
from service.adapters.logs import Line, Record
from service.domain.exchange import Exchange
from service.domain.policies import PolicyOptions
from service.domain.subject import subject_key
from service.domain.tokens import Tokenizer
from service.domain.usage import OUTCOMES
from tests.world import (
    CUT,
    DONE,
    END,
    KEY,
    STREAM,
    TOKENS,
    Model,
    Options,
    Words,
    World,
    decoded,
    piece,
    whole,
)

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "deploy" / "README.md").read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]
EVERY, LIBRARY = "every", "of a library"
EXCHANGE = ("exchange.request", "exchange.response", "exchange.failed", "exchange.ending")

Fields = dict[str, set[str]]  # by event
Built = Callable[..., World]


def rows() -> Iterator[list[str]]:
    """The cells of the table: events, fields, type, and when it is there."""
    for line in SECTION.splitlines():
        if line.startswith("| ") and not line.startswith(("| event", "| ---")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def documented(of: Callable[[str], bool] = lambda there: True) -> Fields:
    """The fields of each event, of those rows whose last cell is one of these."""
    fields: Fields = defaultdict(set)
    for events, names, _, there in rows():
        for event in re.findall("`([^`]+)`", events) or [events]:
            fields[event] |= set(re.findall("`([^`]+)`", names)) if of(there) else set()
    return fields


TABLE = documented()


# What the code says -------------------------------------------------------------------------------


def spoken(call: ast.Call) -> tuple[str, set[str]] | None:
    """The event and the named fields of a call that logs; None of any other."""
    called = ast.unparse(call.func)
    level = re.fullmatch(r"(?:.*\.)?_?logs?\.(debug|info|warning|error)", called)
    if level:
        said, fields = call.args[0], {each.arg or "**" for each in call.keywords}
    elif called == "say":
        said, fields = call.args[1], {each.arg or "**" for each in call.keywords}
    elif called == "Record" and isinstance(call.args[-1], ast.Dict):
        said, fields = call.args[2], {ast.literal_eval(key) for key in call.args[-1].keys if key}
    else:
        return None
    if not (isinstance(said, ast.Constant) and isinstance(said.value, str)):
        return (LIBRARY if called.startswith("self._logs") else "**"), _named(fields)
    return said.value, _named(fields)


def _named(fields: set[str]) -> set[str]:
    return {"exception" if name == "error" else name for name in fields}


def written() -> Fields:
    """What all calls of the package that log say."""
    fields: Fields = defaultdict(set)
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (found := spoken(node)):
                fields[found[0]] |= found[1]
    return fields


def test_every_event_is_in_the_table_and_every_event_of_the_table_is_written() -> None:
    assert set(written()) == set(TABLE) - {EVERY}


@pytest.mark.parametrize("event", sorted(set(TABLE) - {EVERY}))
def test_the_fields_of_an_event_are_those_of_the_table(event: str) -> None:
    """Of the two that are made of facts, the named ones; the facts themselves are below."""
    fields = written()[event]
    assert fields - {"**"} <= TABLE[event]
    assert "**" in fields or fields == TABLE[event]


# What an exchange says ----------------------------------------------------------------------------


def flat(record: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a record, and those of its objects; policies are all called POLICY."""
    for name, value in record.items():
        yield name
        if isinstance(value, dict):
            yield from (f"{name}.{'POLICY' if name in ('charged', 'capacity') else each}" for each in value)


@pytest.fixture
def world(store_url: str, tokenizer: Tokenizer) -> Built:
    log = {"log": {"bodies": "truncated"}}

    def make(upstream: str, policies: Sequence[Any] = (TOKENS,), *more: Any, **how: Any) -> World:
        flow = [*more, log, {"rate-limit-ai-tokens": {"policies": list(policies)}}]
        url = how.pop("url", store_url)
        return World(url, tokenizer, upstream, request=flow, response=[log], **how)

    return make


UNSEEN = [{"type": "image_url", "image_url": {"url": "https://pictures.example/1"}}]


def asking(content: Any = "Hi", **more: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "gpt-4o", "messages": messages, "max_tokens": 9, **more}).encode()


async def said(built: World, *bodies: bytes, **how: Any) -> list[dict[str, Any]]:
    """All that a world logs while it is asked this."""
    async with built:
        for body in bodies:
            await built.client(body, **how).start().over()
        await built.quiet()
    return built.records()


async def allowed(built: World) -> list[dict[str, Any]]:
    """What is said where an operator allows more than the policy."""
    async with built:
        policy = PolicyOptions(**TOKENS).policy()
        wire = open_wire(built.store_url, scripts.load(), connections=1)
        values = {"credential": "key-" + built.tools.digest(KEY)[:16]}
        subject = subject_key(policy.per, values, built.tools.digest)
        await Subjects(wire).allow(subject, policy.account, 2**52, limit=50_000, capacity=50_000)
        await wire.close()
        await built.client(asking()).ask()
        await built.quiet()
    return built.records()


async def fail(exchange: Exchange) -> None:
    raise RuntimeError("a fault of ours")


async def fail_late(exchange: Exchange) -> None:
    async def end() -> None:
        raise RuntimeError("a fault at the end")

    exchange.at_end(end)


async def every_kind(world: Built) -> list[dict[str, Any]]:
    """The records of exchanges of every kind."""
    answer = whole(b'{"usage":{"prompt_tokens":8,"completion_tokens":2}}')
    tight = {**TOKENS, "name": "tight", "limit": 5}
    local = {**TOKENS, "window": "1h", "on-ledger-failure": "local"}
    stream = [STREAM + piece(DONE) + END]
    records = []
    kinds: list[tuple[Words, Sequence[Any], dict[str, Any], dict[str, Any]]] = [
        ([answer], [TOKENS], {}, {}),
        (stream, [TOKENS], {}, {}),
        ([answer], [TOKENS, {**tight, "enforce": False}], {}, {}),
        ([answer], [TOKENS, tight], {}, {}),
        ([answer], [local], {"url": "unix:///nowhere/at/all"}, {}),
        ([whole(b"<html>", status=503)], [TOKENS], {}, {}),
        ([CUT], [TOKENS], {}, {}),
        ([answer], [TOKENS], {"timeout": "300ms"}, {"stalling": lambda client: True}),
        ([answer], [TOKENS], {}, {"method": "GET", "path": "/v1/models"}),
        ([answer], [TOKENS], {}, {"headers": []}),
        ([answer], [TOKENS], {}, {"path": "/elsewhere"}),
    ]
    for words, policies, how, asked in kinds:
        async with Model(words) as model:
            bodies = [asking(user="ana", stream=words is stream), asking(UNSEEN)]
            records += await said(world(model.url, policies, **how), *bodies, **asked)
    async with Model([answer]) as model:
        records += await allowed(world(model.url))
        records += await said(world(model.url, [TOKENS], Options(request=fail)), asking())
        records += await said(world(model.url, [TOKENS], Options(request=fail_late)), asking())
    return records


async def test_exchanges_of_every_kind_say_what_is_in_the_table_and_nothing_else(world: Built) -> None:
    seen: Fields = defaultdict(set)
    always = documented(lambda there: there.startswith("always"))
    for record in await every_kind(world):
        fields = set(flat(record))
        assert (always[record["event"]] | always[EVERY]) - fields == set()
        assert fields - TABLE[record["event"]] - TABLE[EVERY] == set()
        seen[record["event"]] |= fields
    assert {event: TABLE[event] - seen[event] for event in EXCHANGE} == {event: set() for event in EXCHANGE}


def test_what_cannot_be_said_says_so_in_the_words_of_the_table() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise ValueError

    record = json.loads(Line()(Record(0.0, "info", "worker.ready", {"revision": Silent()})))
    assert set(record) == TABLE[EVERY]


def test_the_table_names_every_outcome() -> None:
    (row,) = [cells for cells in rows() if cells[1] == "`outcome`"]
    assert tuple(re.findall("`([^`]+)`", row[2])) == OUTCOMES


def test_the_steps_that_the_section_shows_may_stand_in_a_definition() -> None:
    example = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert example
    steps = yaml.safe_load(example[1])
    assert len(decoded(steps, []).request) == len(steps) == 2
