"""EmbeddedStore: a private server that starts, and ends with whoever started it."""

import asyncio
import importlib.util
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from service.adapters.ledger.embedded import EmbeddedStore, EmbeddedStoreError, server_program
from tests.adapters.ledger.world import eventually

PARENT = """
import signal
from service.adapters.ledger.embedded import EmbeddedStore
with EmbeddedStore() as store:
    print(store.pid, store.url, flush=True)
    signal.pause()
"""


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "\nState:\tZ" not in status


def socket_of(store: EmbeddedStore) -> Path:
    return Path(store.url.removeprefix("unix://"))


def test_it_runs_inside_the_with_and_leaves_nothing_behind() -> None:
    with EmbeddedStore() as store:
        pid, path = store.pid, socket_of(store)
        with redis.Redis.from_url(store.url) as client:
            assert client.ping()
    assert not is_alive(pid)
    assert not path.parent.exists()


def test_its_socket_is_ours_alone() -> None:
    with EmbeddedStore() as store:
        path = socket_of(store)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with redis.Redis.from_url(store.url) as client:
            assert client.config_get("port") == {"port": "0"}


def test_it_refuses_when_full_instead_of_forgetting_quotas() -> None:
    with EmbeddedStore() as store, redis.Redis.from_url(store.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_options_reach_the_server() -> None:
    with (
        EmbeddedStore(server_program(), "--maxclients", "77") as store,
        redis.Redis.from_url(store.url) as client,
    ):
        assert client.config_get("maxclients") == {"maxclients": "77"}


def test_it_can_be_started_again_empty() -> None:
    with EmbeddedStore() as store:
        with redis.Redis.from_url(store.url) as client:
            client.set("a", "b")
        store.stop()
        with pytest.raises(EmbeddedStoreError, match="not running"):
            _ = store.pid
        store.start()
        with redis.Redis.from_url(store.url) as client:
            assert client.dbsize() == 0


def test_a_program_that_is_no_server_is_an_error_and_leaves_nothing_behind() -> None:
    store = EmbeddedStore(Path("/bin/false"))
    with pytest.raises(EmbeddedStoreError, match="false did not start"), store:
        pass
    assert not socket_of(store).parent.exists()


def test_without_any_server_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EmbeddedStoreError, match=r"REDIS_URL.*pip install"):
        server_program()


def test_a_server_on_path_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}" if name == "redis-server" else None)
    assert server_program() == Path("/opt/redis-server")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
async def test_it_ends_with_its_parent_however_that_ends(how: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid, url = (await parent.stdout.readline()).decode().split()
    assert is_alive(int(pid))
    parent.send_signal(how)
    await parent.wait()
    await eventually(lambda: not is_alive(int(pid)))
    shutil.rmtree(Path(url.removeprefix("unix://")).parent, ignore_errors=True)  # nobody was left to do it
