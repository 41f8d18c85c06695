"""Servers: real clusters, and real masters with their sentinels, on free ports of this machine."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations, count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import end_with_parent, server_program

HOST = "127.0.0.1"
PASSWORD = "open sesame!"  # must be quoted in a URL
SLOTS = 16384
IN_MEMORY = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
NEVER_IDLE = ("--repl-ping-replica-period", "1")  # nobody sees a replica to which nothing was ever said
LOCKED = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)


COUNT = lua._script("count", "return {'counted', redis.call('HINCRBY', KEYS[1], ARGV[1], 1)}")
COUNTING = lua.Scripts(**dict.fromkeys(lua.NAMES, COUNT))  # so that each execution can be told
ENGINES = ("valkey-server", "redis-server")


def program(engine: str) -> Path:
    """The embedded server's program, or the one on PATH; the test is skipped where it is not there."""
    if engine == "valkey-server":
        return server_program()
    found = shutil.which(engine)
    if found is None:
        pytest.skip(f"there is no {engine} on PATH")
    return Path(found)


def until(true: Callable[[], object], what: str, *, within: float = 30.0) -> None:
    """Wait until something is so; that it never becomes so is a failure."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, f"it did not become so that {what}"
        time.sleep(0.02)


class Server:
    """A server in a folder of its own, which may be killed and started again."""

    def __init__(self, program: Path, folder: Path, *options: str) -> None:
        self.port, self.bus = _free_ports()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self._command = [str(program), *options, "--port", str(self.port), "--dir", str(self.folder)]
        if "--cluster-enabled" in options:
            self._command += ["--cluster-port", str(self.bus)]
        self._process: subprocess.Popen[bytes] | None = None
        self.direct = redis.Redis(
            HOST,
            self.port,
            password=PASSWORD,
            decode_responses=True,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def node(self) -> tuple[str, int]:
        return HOST, self.port

    def start(self) -> "Server":
        """Start it, and wait until it answers."""
        self.begin()
        until(self.answers, "a server answers")
        return self

    def begin(self, *options: str) -> None:
        """Start it, and wait until it listens, perhaps loading still."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *options], stdout=log, stderr=log, preexec_fn=end_with_parent
            )
        until(self._listens, "a server listens")

    def answers(self) -> bool:
        try:
            return bool(self.direct.ping())
        except redis.RedisError:
            return False

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.node) == 0

    def kill(self) -> None:
        """End it at once, as a machine does that loses its power."""
        self.direct.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor ends."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)  # where it was killed meanwhile, nobody hears

    def ask(self, *command: str | int) -> Any:
        return self.direct.execute_command(*command)  # type: ignore[no-untyped-call]

    def is_master(self) -> bool:
        try:
            return bool(self.ask("ROLE")[0] == "master")
        except redis.ConnectionError:  # sentinels cut the connections of whom they promote
            return False

    def replicates(self) -> bool:
        """Whether it is a replica that has caught up."""
        return self.direct.info("replication").get("master_link_status") == "up"


class Nodes:
    """A cluster: three masters that share the slots evenly, and a replica of one of them."""

    def __init__(self, program: Path, folder: Path) -> None:
        options = (
            *IN_MEMORY,
            *NEVER_IDLE,
            *LOCKED,
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "3000",
        )
        self.all = [Server(program, folder, *options) for _ in range(4)]

    @property
    def url(self) -> str:
        """One node is named; the others are to be found through it."""
        return f"redis+cluster://:{quote(PASSWORD)}@{HOST}:{self.all[0].port}"

    def start(self) -> None:
        for server in self.all:
            server.start()
        *masters, replica = self.all
        share = SLOTS // len(masters) + 1
        for number, master in enumerate(masters):
            master.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first = number * share
            master.ask("CLUSTER ADDSLOTSRANGE", first, min(first + share, SLOTS) - 1)
        for one, other in combinations(self.all, 2):  # rather than wait until they hear of each other
            one.ask("CLUSTER MEET", *other.node, other.bus)
        until(lambda: self._replicate(replica, masters[0]), "a replica knows its master")
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Until every node sees every slot served, and the replica among them."""
        until(lambda: all(self._is_whole(server) for server in self.all), "the cluster is whole")
        until(lambda: sum(server.replicates() for server in self.all) == 1, "the replica has caught up")

    def owner(self, key: str) -> Server:
        """The master that has the key's slot, as most see it."""
        [owner] = [s for s in self.all if s.is_master() and _serves(s, key_slot(key.encode()))]
        return owner

    def replicated(self) -> tuple[Server, Server]:
        """The master that has a replica, and that replica."""
        [replica] = [server for server in self.all if not server.is_master()]
        port = replica.ask("ROLE")[2]
        [master] = [server for server in self.all if server.port == port]
        return master, replica

    def close(self) -> None:
        for server in self.all:
            server.kill()

    def _replicate(self, replica: Server, master: Server) -> bool:
        try:
            return bool(replica.ask("CLUSTER REPLICATE", master.ask("CLUSTER MYID")))
        except redis.ResponseError:  # they have not met yet
            return False

    def _is_whole(self, server: Server) -> bool:
        seen = {node for group in server.ask("CLUSTER SLOTS") for node in map(_place, group[2:])}
        state = server.ask("CLUSTER INFO")["cluster_state"]
        return bool(state == "ok") and seen == {server.node for server in self.all}


class Move:
    """The slot of a key on its way from its master to another one, step by step."""

    def __init__(self, nodes: Nodes, key: str) -> None:
        self.slot = key_slot(key.encode())
        self.source = nodes.owner(key)
        self.masters = [server for server in nodes.all if server.is_master()]
        self.target = next(server for server in self.masters if server is not self.source)

    def begin(self) -> None:
        self.target.ask("CLUSTER SETSLOT", self.slot, "IMPORTING", self.source.ask("CLUSTER MYID"))
        self.source.ask("CLUSTER SETSLOT", self.slot, "MIGRATING", self.target.ask("CLUSTER MYID"))

    def carry(self, most: int = 1) -> int:
        """Move some keys; how many."""
        keys = self.source.ask("CLUSTER GETKEYSINSLOT", self.slot, most)
        if keys:
            self.source.ask("MIGRATE", *self.target.node, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        """The slot is the other's; the two are told first."""
        owner = self.target.ask("CLUSTER MYID")
        others = [server for server in self.masters if server not in (self.target, self.source)]
        for server in (self.target, self.source, *others):
            server.ask("CLUSTER SETSLOT", self.slot, "NODE", owner)


class Watched:
    """A master and its replica, and three sentinels that watch them."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.servers = [Server(program, folder, *IN_MEMORY, *LOCKED) for _ in range(2)]
        self._program, self._folder, self._numbers = program, folder, count()
        self.sentinels = [self.sentinel(self.servers[0]) for _ in range(3)]

    @property
    def url(self) -> str:
        return self.by(*self.sentinels)

    def by(self, *sentinels: Server) -> str:
        """The address by which these sentinels are asked."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in sentinels)
        secret = quote(PASSWORD)
        return f"redis+sentinel://:{secret}@{hosts}/ledger?sentinel_password={secret}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.servers[1].ask("REPLICAOF", *self.servers[0].node)
        until(self.servers[1].replicates, "the replica has caught up")
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Until all sentinels know each other and the replica, and could fail over."""
        until(lambda: all(map(self._is_whole, self.sentinels)), "the sentinels know what they watch")
        until(lambda: sum(server.replicates() for server in self.servers) == 1, "the replica has caught up")

    def master(self) -> Server:
        [master] = [server for server in self.servers if server.answers() and server.is_master()]
        return master

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()

    def sentinel(self, master: Server) -> Server:
        """One that watches this server as the master, not started yet."""
        file = self._folder / f"watching-{next(self._numbers)}.conf"
        file.write_text(
            f"sentinel monitor ledger {HOST} {master.port} 2\n"
            f'sentinel auth-pass ledger "{PASSWORD}"\n'
            "sentinel down-after-milliseconds ledger 500\n"
            "sentinel failover-timeout ledger 2000\n"
            f'requirepass "{PASSWORD}"\n'
        )
        return Server(self._program, self._folder, str(file), "--sentinel")

    def _is_whole(self, sentinel: Server) -> bool:
        seen = sentinel.ask("SENTINEL MASTER", "ledger")
        found = seen if isinstance(seen, dict) else dict(zip(seen[::2], seen[1::2], strict=True))
        return (found["num-slaves"], found["num-other-sentinels"], found["flags"]) == (1, 2, "master")


def _serves(server: Server, slot: int) -> bool:
    groups = server.ask("CLUSTER SLOTS")
    return any(first <= slot <= last and _place(master) == server.node for first, last, master, *_ in groups)


def _place(member: list[Any]) -> tuple[str, int]:
    return member[0], member[1]


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]
