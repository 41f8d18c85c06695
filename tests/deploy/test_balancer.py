"""The balancer lets the API through as it comes, sends nothing twice, and hides everything else."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGURATION = (DEPLOY / "nginx" / "nginx.conf").read_text()
NGINX = shutil.which("nginx") or ""

needs_nginx = pytest.mark.skipif(not NGINX, reason="there is no nginx on PATH")


def listener() -> socket.socket:
    """A socket that listens on a free port: who connects before it is served waits."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def address(taken: socket.socket) -> str:
    host, port = taken.getsockname()
    return f"{host}:{port}"


def moved(directory: Path, *, gateways: list[str], public: str, health: str) -> Path:
    """The configuration with other addresses and another directory; the rest is as it is."""
    text = CONFIGURATION.replace("/tmp/", f"{directory}/").replace("processes auto", "processes 1")
    text = text.replace("server gateway:8080;", " ".join(f"server {one};" for one in gateways))
    text = text.replace("listen 8080;", f"listen {public};").replace(
        "listen 127.0.0.1:8081;", f"listen {health};"
    )
    path = directory / "nginx.conf"
    path.write_text(text)
    return path


@dataclass(slots=True)
class Gateways:
    """Stand-ins for two gateways. A path of /v1/<word> tells them what to do."""

    sockets: list[socket.socket]
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    first_event_seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                if match := re.search(r"content-length: (\d+)", head, re.IGNORECASE):
                    await reader.readexactly(int(match[1]))
                if "/v1/break" in head:
                    break
                await self._answer(head, writer)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        if "/v1/stream" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await self.first_event_seen.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Balancer:
    """A running nginx, the client that asks it, and the gateways behind it."""

    url: str
    health: str
    gateways: Gateways

    async def post(self, path: str, content: bytes = b"{}") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(self.url + path, content=content)


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Of the API, of the balancer's health, and of two gateways."""
    with ExitStack() as stack:
        yield [stack.enter_context(listener()) for _ in range(4)]


@pytest.fixture
async def balancer(tmp_path: Path, sockets: list[socket.socket]) -> AsyncIterator[Balancer]:
    """The balancer, which inherits sockets that listen already: there is nothing to wait for."""
    public, health, *private = sockets
    gateways = Gateways(private)
    path = moved(
        tmp_path, gateways=[address(one) for one in private], public=address(public), health=address(health)
    )
    inherited = [public.fileno(), health.fileno()]
    async with AsyncExitStack() as stack:
        for one in private:
            await stack.enter_async_context(await asyncio.start_server(gateways.serve, sock=one))
        nginx = await asyncio.create_subprocess_exec(
            *(NGINX, "-p", tmp_path, "-c", path, "-g", "daemon off;"),
            env={"NGINX": "".join(f"{number};" for number in inherited)},
            pass_fds=inherited,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        yield Balancer(f"http://{address(public)}", f"http://{address(health)}", gateways)
        nginx.terminate()
        await nginx.wait()


@needs_nginx
def test_nginx_accepts_the_configuration(tmp_path: Path, sockets: list[socket.socket]) -> None:
    public, health, *private = map(address, sockets)
    path = moved(tmp_path, gateways=private, public=public, health=health)
    done = subprocess.run(
        [NGINX, "-t", "-p", tmp_path, "-c", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@needs_nginx
async def test_an_event_passes_before_the_next_one_is_made(balancer: Balancer) -> None:
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{balancer.url}/v1/stream", content=b"{}") as answer,
    ):
        events = answer.aiter_raw()
        assert await anext(events) == b"data: 1\n\n"
        balancer.gateways.first_event_seen.set()
        assert await anext(events) == b"data: 2\n\n"


@needs_nginx
async def test_a_request_that_was_sent_is_never_sent_again(balancer: Balancer) -> None:
    answer = await balancer.post("/v1/break")
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "server_error"
    assert len(balancer.gateways.heads) == 1


@needs_nginx
async def test_connections_to_the_gateways_are_kept(balancer: Balancer) -> None:
    for _ in range(6):
        assert (await balancer.post("/v1/chat/completions")).status_code == 200
    assert balancer.gateways.connections == len(balancer.gateways.sockets)


@needs_nginx
@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/livez", "/readyz", "/v1/%2e%2e/metrics", "/v1x", "/console"]
)
async def test_what_is_private_does_not_exist(balancer: Balancer, path: str) -> None:
    answer = await balancer.post(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert balancer.gateways.heads == []


@needs_nginx
async def test_a_client_cannot_choose_the_address_that_it_comes_from(balancer: Balancer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"{balancer.url}/v1/models", headers={"x-forwarded-for": "192.0.2.1"})
    assert "X-Forwarded-For: 127.0.0.1\r\n" in balancer.gateways.heads[0]
    assert "192.0.2.1" not in balancer.gateways.heads[0]


@needs_nginx
async def test_a_body_beyond_every_bound_is_refused_in_the_words_of_the_api(balancer: Balancer) -> None:
    answer = await balancer.post("/v1/chat/completions", b" " * (34 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


@needs_nginx
async def test_the_balancer_is_well_where_its_own_health_is_asked(balancer: Balancer) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(balancer.health)).status_code == 204


def test_the_balancer_lets_every_body_through_that_the_definition_allows() -> None:
    definition = yaml.safe_load((DEPLOY / "OpenAI_Chat_Completions_API.yaml").read_text())
    allowed = re.fullmatch(r"(\d+)MB", definition["x-weir"]["max-body"])
    passed = re.search(r"client_max_body_size (\d+)m;", CONFIGURATION)
    assert allowed is not None
    assert passed is not None
    assert int(passed[1]) > int(allowed[1])


def test_the_gateways_feel_a_client_that_reads_slowly() -> None:
    """With buffering nginx would take the whole answer, onto its disk if need be, for a client that left."""
    assert "proxy_buffering off;" in CONFIGURATION
