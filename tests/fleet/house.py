"""House: the programs of a deployment, with the configuration that is deployed, on free ports."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from service.adapters.ledger.embedded import end_with_parent
from tests.adapters.ledger.servers import LOCKED, PASSWORD, Server
from tests.fleet.requests import policies
from tests.programs import DIGEST_KEY, Gateway, definition, is_running, simulating

DEPLOY = Path(__file__).parents[2] / "deploy"
WORKERS = 2
DRAIN = "3s"
NEEDED = ("redis-server", "nginx", "prometheus", "promtool")
DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


def needed(name: str) -> str:
    """Where a program is; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on PATH")
    return found


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class House:
    """Three gateways and one to come behind nginx, their store, their model and their Prometheus."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.api = [free_port() for _ in range(3)]
        self.operations = [free_port() for _ in range(4)]
        self.watch = free_port()
        self.pids: list[int] = []
        self.model = stack.enter_context(simulating())
        self.store = Server(
            Path(needed("redis-server")), folder, *DURABLE, "--maxmemory-policy", "noeviction", *LOCKED
        )
        stack.callback(self.store.kill)
        self.store.start()
        self._definition = definition(folder, *policies())
        self.gateways = [self.gateway(number, number) for number in range(3)]
        for gateway in self.gateways:
            gateway.wait_until_ready(WORKERS)
        self.url = self._balance()
        self._observe()

    @property
    def ledger(self) -> str:
        """The address of the store."""
        return f"redis://:{quote(PASSWORD)}@127.0.0.1:{self.store.port}/0"

    def gateway(self, place: int, instance: int) -> Gateway:
        """One that has begun, at a place behind the balancer, and is watched as this instance."""
        told = {
            "WEIR_DIGEST_KEY": DIGEST_KEY,
            "WEIR_DRAIN": DRAIN,
            "WEIR_GRACE": "20s",
            "REDIS_URL": self.ledger,
            "UPSTREAM_URL": self.model,
            "WEIR_LEDGER_DEADLINE": "5s",
            "WEIR_PORT": str(self.api[place]),
            "WEIR_OPS_PORT": str(self.operations[instance]),
            "WEIR_WORKERS": str(WORKERS),
            "WEIR_DEFINITION": str(self._definition),
        }
        gateway = Gateway("serve", environment=told)
        self._stack.callback(_ended, gateway)
        self.pids.append(gateway.pid)
        return gateway

    def ends(self) -> None:
        """Tell the gateways to end, all at once: each drains for a while."""
        for gateway in self.gateways:
            if gateway.process.poll() is None:
                gateway.process.terminate()

    def instance(self, number: int) -> str:
        """By what name Prometheus knows a gateway."""
        return f"127.0.0.1:{self.operations[number]}"

    def reload(self) -> None:
        """Tell the balancer to look again who is there."""
        os.kill(self._balancer, signal.SIGHUP)

    def _balance(self) -> str:
        """Start nginx on sockets that listen already; the address of the API."""
        text = (DEPLOY / "nginx" / "nginx.conf").read_text().replace("/tmp/", f"{self.folder}/")
        text = text.replace("processes auto", "processes 1")
        servers = " ".join(f"server 127.0.0.1:{port};" for port in self.api)
        public, health = (socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2))
        with public, health:
            port, other = public.getsockname()[1], health.getsockname()[1]
            text = re.sub(r"(server gateway:8080;)", servers, text)
            text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
            text = text.replace("listen 127.0.0.1:8081;", f"listen 127.0.0.1:{other};")
            (self.folder / "nginx.conf").write_text(text)
            inherited = (public.fileno(), health.fileno())
            command = [needed("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
            told = {"NGINX": "".join(f"{number};" for number in inherited)}
            self._balancer = self._start([*command, "-g", "daemon off;"], told, inherited)
        return f"http://127.0.0.1:{port}"

    def _observe(self) -> None:
        """Start Prometheus, which looks more often, and tells of a ledger that is away after 2 s."""
        source, there = DEPLOY / "prometheus", self.folder / "prometheus"
        shutil.copytree(source, there)
        document = yaml.safe_load((source / "prometheus.yml").read_text())
        document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in document["scrape_configs"]:
            ports = self.operations if job["job_name"] == "weir" else [self.watch]
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        (there / "prometheus.yml").write_text(yaml.safe_dump(document))
        for path in there.glob("*.yml"):
            path.write_text(re.sub(r"(alert: LedgerAway\n.*\n +for:) \w+", r"\1 2s", path.read_text()))
        command = [needed("prometheus"), f"--config.file={there / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={there / 'data'}", f"--web.listen-address=127.0.0.1:{self.watch}"]
        self._start(command, {}, ())

    def _start(self, command: Sequence[str], told: Mapping[str, str], inherited: Sequence[int]) -> int:
        """Start a program that ends with us, whatever happens."""
        with (self.folder / "programs.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=told,
                pass_fds=inherited,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )
        self.pids.append(process.pid)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process.pid


@contextmanager
def deployed(folder: Path) -> Iterator[House]:
    """A house in which everything runs, and of which nothing is left behind."""
    for name in NEEDED:
        needed(name)
    with ExitStack() as stack:
        house = House(folder, stack)
        stack.callback(house.ends)
        yield house
        pids = [pid for one in house.pids for pid in _family(one)]
    assert [pid for pid in pids if is_running(pid)] == []


def _family(pid: int) -> list[int]:
    """A process and its children, those that run."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def _ended(gateway: Gateway) -> None:
    """End a gateway, and whatever is left of it."""
    if gateway.process.poll() is None:
        gateway.process.terminate()
        try:
            gateway.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(gateway.pid, signal.SIGKILL)
    gateway.ended()
