"""The scripts' contracts: what their headers say is what their code uses, and every engine takes them."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from service.adapters.ledger import scripts as lua
from service.domain.policy import Policy
from tests.lua.calls import ALICE, LEASE, START, Calls, of

FILES = sorted(lua.folder().glob("*.lua"))
CALLED = [file for file in FILES if file.name != "account.lua"]
MINUTE = Policy(name="minute", per=(), limit=10, window=60_000)
MINE = ("CONFIG", "INFO", "EVALSHA")  # the tests' own commands
MOST_LINES = 740
MOST_BYTES = 33_500  # of all files together

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
every_script = pytest.mark.parametrize("file", CALLED, ids=lambda file: file.name)


def header(file: Path) -> str:
    """The comment at the top, without its dashes."""
    lines = file.read_text().splitlines()
    ends = next(index for index, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:ends])


def code(file: Path) -> str:
    """The file without comments."""
    return "\n".join(line.partition("--")[0] for line in file.read_text().splitlines())


def named(file: Path, array: str) -> set[int | str]:
    """The indices the header names; a range to the end is told as `2..`."""
    found = re.findall(rf"^{array}\[(\d+)(\.\.n?)?\] ", header(file), re.MULTILINE)
    return {f"{index}.." if more else int(index) for index, more in found}


def used(file: Path) -> set[int | str]:
    """The indices of ARGV that the code uses; `open_call` takes policies, amounts and names from one on."""
    direct: set[int | str] = {int(index) for index in re.findall(r"ARGV\[(\d+)\]", code(file))}
    for index in map(int, re.findall(r"open_call\((\d+),", code(file))):
        direct |= {index, index + 1, f"{index + 2}.."}
    return direct


def test_the_files_are_the_scripts_and_what_they_share() -> None:
    assert {file.stem for file in FILES} == {*lua.NAMES, "account"}


@every_file
def test_a_file_opens_with_one_sentence_that_starts_with_its_name(file: Path) -> None:
    sentence = header(file).split("\n\n")[0]
    assert sentence.startswith(f"{file.stem}: ")
    assert sentence.endswith(".")
    assert ". " not in sentence


@every_script
def test_the_arguments_used_are_exactly_those_named(file: Path) -> None:
    assert named(file, "ARGV") == used(file)
    assert re.search(r"^ARGV\[1\] +now +ms; \"\" asks the server for the time$", header(file), re.MULTILINE)


@every_script
def test_the_keys_are_named_and_read_in_one_place(file: Path) -> None:
    text = code(file)
    assert named(file, "KEYS") == ({"1.."} if file.stem in ("reserve", "settle", "renew") else {1})
    assert set(re.findall(r"KEYS\[\w+\]", text)) == (set() if "open_call" in text else {"KEYS[1]"})
    assert set(re.findall(r"KEYS\[\w+\]", code(lua.folder() / "account.lua"))) == {"KEYS[at]"}


@every_script
def test_every_status_it_can_return_is_named(file: Path) -> None:
    told = "Returns " + header(file).partition("\nReturns ")[2].partition("\n\n")[0]
    listed = told.partition("Status: ")[2]
    statuses = {one.split()[0].rstrip(".") for one in listed.split(";")} if listed else set()
    statuses |= set(re.findall(r'\{"(\w+)"', told))
    returned = set(re.findall(r"(?:return |answer\(|refuse\(|status = )\{?'([a-z]+)'", code(file)))
    assert returned
    assert statuses == returned


def test_every_engine_loads_every_script_under_its_digest(server: redis.Redis) -> None:
    for script in lua.load():
        assert server.script_load(script.text) == script.sha


@every_file
def test_nothing_forbidden_is_used(file: Path) -> None:
    text = file.read_text()
    commands = set(re.findall(r"redis\.p?call\('(\w+)'", text))
    on_workers = {"ZADD", "ZREM", "ZREMRANGEBYSCORE", "ZCARD", "PEXPIRE"}
    on_subjects = {"TIME", "HMGET", "HGET", "HSCAN", "HSET", "HDEL", "PEXPIRE", "PTTL"}
    assert commands <= (on_workers if file.stem == "heartbeat" else on_subjects)
    assert text.count("redis.") == len(re.findall(r"redis\.call\('", text))
    assert not re.search(r"cjson|cmsgpack|loadstring|_G\b|setfenv|rawset", text)
    assert not text.startswith("#!")


@every_file
def test_no_global_is_made(file: Path) -> None:
    text = code(file)
    known = text if file.stem == "account" else code(lua.folder() / "account.lua") + text
    declared = {
        name
        for names in re.findall(r"\blocal ([\w, ]+?)(?: =|$)", known, re.MULTILINE)
        for name in names.split(", ")
    }
    assigned = re.findall(
        r"^\s*(\w+(?:, \w+)*) = .*[^,]$", text, re.MULTILINE
    )  # a table's fields end in a comma
    assert {name for names in assigned for name in names.split(", ")} <= declared
    assert not re.search(r"^(?!\s*local )\s*function \w", text, re.MULTILINE)


def test_an_engine_refuses_a_script_that_makes_a_global(server: redis.Redis) -> None:
    """So that every other test, which runs the scripts, would notice one too."""
    with pytest.raises(redis.ResponseError, match=r"readonly table|global variable"):
        server.eval("left_behind = 1", 0)


def test_the_cellar_stays_small() -> None:
    texts = [file.read_text() for file in FILES]
    assert sum(text.count("\n") for text in texts) <= MOST_LINES
    assert sum(map(len, texts)) <= MOST_BYTES


@every_file
def test_no_line_is_too_long(file: Path) -> None:
    assert max(map(len, file.read_text().splitlines())) <= 120


def test_the_page_beside_them_names_every_script_and_every_sort_of_field() -> None:
    page = (lua.folder() / "README.md").read_text()
    for name in (*lua.NAMES, "account.lua", "~", "~<id>", "!<id>"):
        assert f"`{name}`" in page


def test_what_the_page_says_a_call_costs_is_what_it_costs(calls: Calls) -> None:
    def commands(call: Callable[[], object]) -> dict[str, int]:
        calls.server.config_resetstat()
        call()
        counted: Any = calls.server.info("commandstats")
        named = {name.removeprefix("cmdstat_").upper(): told["calls"] for name, told in counted.items()}
        return {name: times for name, times in named.items() if name.split("|")[0] not in MINE}

    def run(script: lua.Script, *arguments: object) -> Callable[[], object]:
        return lambda: calls.run(script, [part], "", 2**52, *arguments)

    part, more, looks = of(MINUTE, 4), of(MINUTE, 9), {"TIME": 1, "HMGET": 1}
    settle, renew = calls.scripts.settle, calls.scripts.renew
    assert commands(lambda: calls.reserve("", "a", part)) == {**looks, "HSET": 1, "PEXPIRE": 1}
    assert commands(lambda: calls.reserve("", "b", part)) == {**looks, "HSET": 1}
    assert commands(lambda: calls.reserve("", "c", more)) == looks
    assert commands(run(settle, "b", "settle", 1, 0, 2**52)) == {**looks, "HDEL": 1, "HSET": 1}
    assert commands(run(renew, "a", LEASE, 0)) == {**looks, "HSET": 1}
    assert commands(lambda: calls.peek("", part)) == looks


MOST_IDLE, MOST_OPEN = 750, 1_000  # bytes


def test_a_subject_costs_what_the_page_says(calls: Calls) -> None:
    four = [
        of(dataclasses.replace(MINUTE, name=f"policy-{number}", limit=20_000), 1_500) for number in range(4)
    ]
    calls.reserve(START, "r" * 16, *four)
    assert int(calls.server.memory_usage(ALICE, samples=0) or 0) <= MOST_OPEN
    calls.settle(START, "r" * 16, *four)
    assert int(calls.server.memory_usage(ALICE, samples=0) or 0) <= MOST_IDLE
