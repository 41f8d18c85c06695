"""Operations: what is measured over all workers, and what ready and alive mean when the ledger is away."""

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore, server_program
from service.app import read_definition
from service.operations import DRAINING, READY, STARTING, operations
from service.settings import load
from tests.programs import Gateway, asked, definition, run, serving, simulating, until
from tests.sockets import owner

ASK = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep is the river?"}]})


@pytest.fixture(scope="module")
def store() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as store:
        yield store


@pytest.fixture(scope="module")
def gateway(store: EmbeddedStore) -> Iterator[Gateway]:
    with (
        simulating() as model,
        serving(workers=2, UPSTREAM_URL=model, REDIS_URL=store.url) as gateway,
    ):
        yield gateway


def readyz(gateway: Gateway) -> tuple[int, Any]:
    status, text = asked(f"{gateway.operations}/readyz")
    return status, json.loads(text)


def total(gateway: Gateway, name: str, labels: str = "") -> float:
    """The sum of a metric's series with these labels."""
    _, page = asked(f"{gateway.operations}/metrics")
    series = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", page, re.MULTILINE)
    return sum(float(number) for found, number in series if labels in found)


def ask(gateway: Gateway) -> int:
    """Ask over a new connection; the worker that answered."""
    place = urlsplit(gateway.url)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port)) as connection:
        fields = {"authorization": "Bearer sk-x", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", ASK, fields)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()
        return owner(gateway, connection.sock.getsockname()[1])


def test_the_numbers_are_those_of_all_workers(gateway: Gateway) -> None:
    workers: list[int] = []

    def all_have_answered() -> bool:
        workers.append(ask(gateway))
        return len(set(workers)) == 2

    until(all_have_answered)
    until(lambda: total(gateway, "weir_requests_total", 'status="200"') == len(workers))
    assert total(gateway, "weir_tokens_total", 'kind="completion"') == 40 * len(workers)
    assert total(gateway, "weir_request_seconds_count") == len(workers)
    assert total(gateway, "weir_in_flight") == 0
    assert total(gateway, "weir_ledger_available") == 1  # the least of all, not the sum
    assert total(gateway, "weir_build_info") == 1


def test_promtool_has_nothing_to_say_against_the_page(gateway: Gateway) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here")
    ask(gateway)
    _, page = asked(f"{gateway.operations}/metrics")
    command = [promtool, "check", "metrics"]
    process = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout + process.stderr) == (0, "")


def test_a_gateway_that_serves_is_ready_and_says_what_it_serves(gateway: Gateway) -> None:
    status, said = readyz(gateway)
    assert (status, said["ready"], said["ledger"]) == (200, True, "ok")
    assert said["workers"] == {"ready": 2, "of": 2}
    assert said["revision"] == gateway.waiting_for("worker.ready")["revision"]


def test_health_is_that_readiness(gateway: Gateway) -> None:
    port = str(urlsplit(gateway.operations).port)
    code, said, _ = run("health", environment={"WEIR_OPS_PORT": port})
    assert (code, json.loads(said)["ready"]) == (0, True)


def test_nothing_of_operations_is_on_the_public_port_and_nothing_public_here(gateway: Gateway) -> None:
    for path in ("/metrics", "/livez", "/readyz"):
        assert asked(gateway.url + path)[0] == 404
        assert asked(gateway.operations + path)[0] == 200
    assert asked(f"{gateway.operations}/v1/models")[0] == 404


def test_a_ledger_that_may_forget_is_shown(gateway: Gateway, store: EmbeddedStore) -> None:
    with redis.Redis.from_url(store.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        status, said = readyz(gateway)
        client.config_set("maxmemory-policy", "noeviction")
    assert (status, said["ready"]) == (503, False)
    assert said["ledger"].startswith("maxmemory-policy is allkeys-lru: quotas may be forgotten")
    assert readyz(gateway)[0] == 200


def test_alive_never_depends_on_the_ledger_and_ready_does_where_a_policy_refuses(
    gateway: Gateway, store: EmbeddedStore
) -> None:
    store.stop()
    status, said = readyz(gateway)
    assert (status, said["ready"]) == (503, False)
    assert said["ledger"].startswith("away: ")
    until(lambda: len(gateway.records("ledger.away")) == 2)  # each worker says it, though nobody asks
    assert all(said["why"] for said in gateway.records("ledger.away"))
    until(lambda: total(gateway, "weir_ledger_available") == 0)
    assert asked(f"{gateway.operations}/livez") == (200, '{"alive":true}')
    assert asked(f"{gateway.operations}/metrics")[0] == 200
    store.start()
    until(lambda: readyz(gateway)[0] == 200)
    until(lambda: len(gateway.records("ledger.back")) == 2)
    until(lambda: total(gateway, "weir_ledger_available") == 1)


async def readiness(folder: Path, url: str, *states: int, **policy: str) -> tuple[int, str]:
    """Status, and what is said of the ledger, without a process."""
    user = {"name": "user", "per": ["user"], "limit": 1000, "window": "1m", **policy}
    api = read_definition(definition(folder, user), load({}, {}))
    app = operations(api, url=url, metrics=str(folder), states=states)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://weir")
    async with app.router.lifespan_context(app), client:
        answer = await client.get("/readyz")
        return answer.status_code, answer.json()["ledger"].partition(":")[0]


async def test_ready_does_not_depend_on_the_ledger_where_no_policy_refuses_without_it(tmp_path: Path) -> None:
    nowhere, allow = "unix:///nowhere/s", {"on-ledger-failure": "allow"}
    assert await readiness(tmp_path, nowhere, READY, STARTING, **allow) == (200, "away")
    assert await readiness(tmp_path, nowhere, STARTING, STARTING, **allow) == (503, "away")
    assert await readiness(tmp_path, nowhere, READY, DRAINING, **allow) == (503, "away")
    assert await readiness(tmp_path, nowhere, READY) == (503, "away")


async def test_a_server_that_does_not_tell_its_configuration_is_not_away(tmp_path: Path) -> None:
    with EmbeddedStore(server_program(), "--rename-command", "CONFIG", "") as store:
        assert await readiness(tmp_path, store.url, READY) == (200, "ok")


async def test_a_server_that_lets_nobody_run_the_scripts_is_not_ready(tmp_path: Path) -> None:
    """It answered PING and CONFIG GET, so that every request was refused by a gateway that was ready."""
    with EmbeddedStore(server_program()) as store:
        with redis.Redis.from_url(store.url) as client:
            client.acl_setuser(
                "default", enabled=True, nopass=True, keys=["*"], commands=["-evalsha", "-eval"]
            )
        assert await readiness(tmp_path, store.url, READY) == (503, "away")
