"""weir tail: what an operator sees of exchanges, as they end, whatever becomes of Redis and of the reader."""

import argparse
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from service.__main__ import main
from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.adapters.ledger.journal import FIELD, KEY
from service.app import digester
from service.settings import inherited
from service.tail.arguments import add
from service.tail.line import line
from tests.commands import forget_settings
from tests.programs import DIGEST_KEY, definition, run, running, serving, simulating, until

DIGEST = digester(DIGEST_KEY)
RECORD: dict[str, Any] = {
    "timestamp": "2026-11-23T20:27:46.463Z",
    "id": "req_1",
    "credential": "key-34tv6dygFtpjAqB6",
    "user": DIGEST("ada"),
    "model": "gpt-4o",
    "status": 200,
    "outcome": "complete",
    "used": {"prompt": 8, "completion": 40},
    "ms": {"total": 13.61},
}


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    with EmbeddedStore(server_program(), "--appendonly", "yes") as store:
        yield store


def note(store: EmbeddedStore, *records: Mapping[str, Any]) -> None:
    """As if a worker had written these exchanges."""
    with redis.Redis.from_url(store.url) as client:
        for record in records:
            client.xadd(KEY, {FIELD: json.dumps({**RECORD, **record})})


def tail(store: EmbeddedStore, *words: str, **environment: str) -> list[dict[str, Any]]:
    """The records that it shows of what is there."""
    told = {"REDIS_URL": store.url, "WEIR_DIGEST_KEY": DIGEST_KEY, **environment}
    code, said, complaints = run("tail", "--since", "1h", "--json", *words, environment=told)
    assert (code, complaints) == (0, "")
    return [json.loads(one) for one in said.splitlines()]


# What is shown ------------------------------------------------------------------------------------


def test_a_line_says_when_who_what_and_how_it_ended() -> None:
    said = line(RECORD, coloured=False)
    assert said.split() == [
        "20:27:46.463", DIGEST("ada")[:13] + "…", "gpt-4o", "200", "8+40", "-", "13.6ms", "req_1",
    ]  # fmt: skip


def test_a_refusal_names_the_policy_and_another_bad_end_its_outcome() -> None:
    refused = {**RECORD, "status": 429, "outcome": "rejected", "policy": "user-minute", "used": None}
    assert line(refused, coloured=False).split()[3:6] == ["429", "-", "user-minute"]
    gone = {**RECORD, "outcome": "client_gone", "status": None, "user": None}
    words = line(gone, coloured=False).split()
    assert (words[1], words[3], words[5]) == ("key-34tv6dygF…", "-", "client_gone")


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    records = [
        RECORD,
        {"id": "req_2"},
        {**RECORD, "model": "m" * 256, "user": "u" * 256, "policy": "p" * 80},
        {**RECORD, "used": {"prompt": 10**6, "completion": 10**5}, "ms": {"total": 61_234.5}},
    ]
    assert len({line(one, coloured=False).rindex("  ") for one in records}) == 1


@pytest.mark.parametrize(("status", "colour"), [(200, 32), (302, 36), (429, 33), (503, 31), (None, 31)])
def test_a_status_has_its_colour_and_nothing_else_has(status: int | None, colour: int) -> None:
    said = line({**RECORD, "status": status}, coloured=True)
    assert f"\x1b[{colour}m{status or '-'!s:<3}\x1b[0m" in said
    assert said.count("\x1b") == 2


def test_what_a_client_wrote_cannot_command_a_terminal() -> None:
    said = line({**RECORD, "model": "a\x1b[2Jb\nc", "user": "\u202e", "id": "\r"}, coloured=False)
    assert said.isprintable()


# What is chosen -----------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_shown(store: EmbeddedStore) -> None:
    note(
        store,
        {"id": "1"},
        {"id": "2", "user": DIGEST("bob"), "status": 429},
        {"id": "3", "user": "ada", "model": "gpt-4o-mini", "status": 503},
        {"id": "4", "user": None, "model": None, "status": None},
    )

    def shown(count: int, *words: str) -> str:
        return "".join(one["id"] for one in tail(store, "--count", str(count), *words))

    assert shown(4) == "1234"
    assert shown(2) == "12"
    assert shown(2, "--user", "ada") == "13"  # also where the operator logs names in clear
    assert shown(1, "--user", DIGEST("bob")) == "2"
    assert shown(1, "--status", "429") == "2"
    assert shown(1, "--status", "5xx") == "3"
    assert shown(3, "--model", "gpt-4o*") == "123"
    assert shown(1, "--model", "gpt-4o*", "--status", "5xx", "--user", "ada") == "3"


def test_what_somebody_else_wrote_into_the_stream_is_passed_over(store: EmbeddedStore) -> None:
    with redis.Redis.from_url(store.url) as client:
        for foreign in ({"other": "x"}, {FIELD: "{"}, {FIELD: "[]"}, {FIELD: b"\xff"}):
            client.xadd(KEY, foreign)
    note(store, {"id": "mine"})
    assert [one["id"] for one in tail(store, "--count", "1")] == ["mine"]


def test_without_since_only_what_comes_is_shown(store: EmbeddedStore) -> None:
    with redis.Redis.from_url(store.url) as client:
        client.xadd(KEY, {FIELD: json.dumps({**RECORD, "id": "old"})}, id="1700000000000-0")
    with running("tail", "--count", "1", REDIS_URL=store.url) as program:
        until(lambda: reads(store))
        note(store, {"id": "new"})
        assert program.ended() == 0
    assert program.text.split()[-1] == "new"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--status", "42"], "expected a status such as 429 or 5xx, not '42'"),
        (["--since", "5"], "expected a time such as 30s, 5m or 12h, up to 7d, not '5'"),
        (["--since", "8d"], "expected a time such as 30s, 5m or 12h, up to 7d, not '8d'"),
        (["--count", "0"], "expected a whole number from 1 to 999999999, not '0'"),
        (["--model", ""], "expected a glob of 1 to 256 characters"),
    ],
)
def test_what_cannot_be_is_told(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert expected in capsys.readouterr().err


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    forget_settings(monkeypatch)
    return monkeypatch


def test_it_says_what_it_needs(unset: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail"]) == 2
    assert capsys.readouterr().err == "REDIS_URL: expected, as the gateways have it\n"
    unset.setenv("REDIS_URL", "unix:///nowhere/s")
    assert main(["tail", "--user", "ada"]) == 2  # nobody could digest it as the gateways do
    assert "WEIR_DIGEST_KEY: expected" in capsys.readouterr().err
    assert main(["tail"]) == 1
    assert capsys.readouterr().err.startswith("the ledger is away: ")


# How it lives -------------------------------------------------------------------------------------


def reads(store: EmbeddedStore) -> bool:
    """Whether somebody waits for news."""
    with redis.Redis.from_url(store.url) as client:
        return bool(client.info("clients")["blocked_clients"])


def test_it_goes_on_where_it_was_when_redis_comes_back(store: EmbeddedStore) -> None:
    note(store, {"id": "first"})
    with running("tail", "--since", "1h", "--count", "3", REDIS_URL=store.url) as program:
        until(lambda: "first" in program.text)
        store.stop()
        until(lambda: "waiting until it is back" in program.complaints)
        store.start()
        note(store, {"id": "second"})
        until(lambda: "second" in program.text)
        note(store, {"id": "third"})
        assert program.ended() == 0
    assert [said.split()[-1] for said in program.text.splitlines()] == ["first", "second", "third"]
    away, back = program.complaints.splitlines()
    assert away.startswith("the ledger is away: ")
    assert back == "the ledger is back"


def test_it_ends_quietly_when_it_is_told_to(store: EmbeddedStore) -> None:
    with running("tail", REDIS_URL=store.url) as program:
        until(lambda: reads(store))
        assert program.stop(signal.SIGINT) == 130
    assert (program.text, program.complaints) == ("", "")


@pytest.mark.parametrize("news", [True, False])
def test_it_ends_quietly_when_nobody_reads_any_more(store: EmbeddedStore, news: bool) -> None:
    environment = inherited(REDIS_URL=store.url)
    command = [sys.executable, "-m", "service", "tail", "--since", "1h"]
    note(store, {"id": "first"})
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"first" in process.stdout.readline()
        process.stdout.close()
        if news:
            note(store, {"id": "second"})
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colours_are_for_terminals_and_for_those_who_like_them(store: EmbeddedStore, no_colour: str) -> None:
    note(store, {"id": "first"})
    near, far = pty.openpty()
    command = [sys.executable, "-m", "service", "tail", "--since", "1h", "--count", "1"]
    environment = inherited(REDIS_URL=store.url, NO_COLOR=no_colour)
    assert subprocess.run(command, stdout=far, env=environment, timeout=20, check=False).returncode == 0
    said = os.read(near, 4096).decode()
    os.close(near)
    os.close(far)
    assert ("\x1b[32m200\x1b[0m" in said) is not bool(no_colour)
    _, piped, _ = run("tail", "--since", "1h", "--count", "1", environment={"REDIS_URL": store.url})
    assert "\x1b" not in piped


def test_it_shows_what_gateways_do_to_the_last_exchange_before_they_end(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    calls = {"name": "calls", "per": ["user"], "limit": 3, "window": "1h", "count": "requests"}
    asked = {"model": "gpt-4o", "user": "ada", "messages": [{"role": "user", "content": "Hello"}]}
    file = str(definition(tmp_path, {**calls, "algorithm": "fixed-window"}))
    with (
        simulating() as model,
        serving(workers=2, UPSTREAM_URL=model, REDIS_URL=store.url, WEIR_DEFINITION=file) as gateway,
        httpx.Client(base_url=gateway.url, headers={"authorization": "Bearer sk-any-at-all"}) as client,
    ):
        for _ in range(5):
            client.post("/v1/chat/completions", json=asked)
        assert gateway.stop() == 0
    shown = tail(store, "--user", "ada", "--count", "5")
    assert sorted(one["status"] for one in shown) == [200, 200, 200, 429, 429]
    assert {one["policy"] for one in shown if one["status"] == 429} == {"calls"}
    said = gateway.records("exchange.response")
    assert {one["id"] for one in shown} == {one["id"] for one in said}
