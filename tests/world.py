"""The world around a gateway: everything of ours is real, only the model and the client are made by hand."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict

from service import interceptors
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.wire import open_wire
from service.adapters.logs import Logs
from service.app import Worker, build
from service.domain.api import Api, Step, parse
from service.domain.exchange import Exchange
from service.domain.headers import Field
from service.domain.policies import PolicyOptions
from service.domain.policy import Claim
from service.domain.subject import subject_key
from service.domain.tokens import Tokenizer
from service.interceptors import Tools
from service.settings import Secret, Settings

PATIENCE = 10.0  # s; nothing here takes so long, unless it is broken
KEY = "sk-canary-" + "0123456789abcdef" * 2
CALLER: list[Field] = [
    (b"host", b"weir"),
    (b"authorization", b"Bearer " + KEY.encode()),
    (b"content-type", b"application/json"),
]

# A window so long that nothing drains while a test runs.
TOKENS = {
    "name": "tokens",
    "per": ["credential"],
    "limit": 1_000_000,
    "window": "30d",
    "algorithm": "fixed-window",
}
CALLS = {**TOKENS, "name": "calls", "count": "requests"}
TOGETHER = {"name": "together", "per": ["credential"], "limit": 100, "count": "concurrent-requests"}
LIMITED = {"rate-limit-ai-tokens": {"policies": [TOKENS, CALLS, TOGETHER]}}
VALIDATED: dict[str, Any] = {"json-schema-validation": {}}
LOGGED: dict[str, Any] = {"log": {}}

Act = Callable[[Exchange], Awaitable[None]]


async def becomes(condition: Callable[[], object], what: str = "that") -> None:
    """Wait until it is so."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - there is no event for what the store holds
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


# The model ----------------------------------------------------------------------------------------

STALL, CUT, CLOSE = "stall", "cut", "close"  # until the other side closes; with a reset; politely
Words = Sequence[bytes | str | asyncio.Event]


def whole(body: bytes, *, status: int = 200, kind: str = "application/json", fields: str = "") -> bytes:
    """An answer of a known length; `fields` are whole lines."""
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def piece(data: bytes) -> bytes:
    """A chunk of a stream, as HTTP frames it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Model:
    """A server that says bytes as told, the same to every request, and remembers what it heard.

    `notice` is called when it has heard a request.
    """

    words: Words = ()
    notice: Callable[[], None] = lambda: None
    url: str = ""
    heard: list[bytes] = field(default_factory=list)
    open: int = 0  # connections
    connections: int = 0  # since the beginning
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "Model":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def body(self) -> bytes:
        """The body of the last request."""
        return self.heard[-1].partition(b"\r\n\r\n")[2]

    @property
    def line(self) -> bytes:
        """The request line of the last request."""
        return self.heard[-1].partition(b"\r\n")[0]

    @property
    def fields(self) -> list[Field]:
        """The fields of the last request, names in lower case."""
        lines = self.heard[-1].partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        pairs = (line.partition(b":") for line in lines)
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Hear a request, say the words; whether the connection stays."""
        request = await reader.readuntil(b"\r\n\r\n")
        for line in request.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                request += await reader.readexactly(int(line.partition(b":")[2]))
        self.heard.append(request)
        self.notice()
        for word in self.words:
            if isinstance(word, asyncio.Event):
                await word.wait()
            elif word == STALL:
                await reader.read()
                return False
            elif word == CUT:
                writer.transport.abort()
                return False
            elif word == CLOSE:
                return False
            elif isinstance(word, bytes):
                writer.write(word)
                await writer.drain()
        return True


# The client ---------------------------------------------------------------------------------------

Message = Mapping[str, Any]


class Client:
    """A client that speaks ASGI by hand: it sends its body in pieces, may stall, and leaves when told.

    `body` is sent piece by piece; None is where it hesitates for ever. Once it is `stalling` it takes no
    more: `send` blocks, whatever happens then. It is asked after each message.
    """

    def __init__(
        self,
        app: Any,
        body: bytes | Sequence[bytes | None] = b"",
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        query: bytes = b"",
        headers: Iterable[Field] = CALLER,
        stalling: Callable[["Client"], bool] = lambda client: False,
    ) -> None:
        self._app = app
        self._pieces = [body] if isinstance(body, bytes) else list(body)
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list(headers),
            "client": ("127.0.0.1", 4000),
        }
        self._stalling = stalling
        self._left = asyncio.Event()
        self.messages: list[Message] = []
        self.listening = False  # all there was of the body is sent
        self.stalled = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> "Client":
        """Begin."""
        self.task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        return self

    def leave(self) -> None:
        """Go away: the next thing that is received is the disconnection."""
        self._left.set()

    async def over(self) -> "Client":
        """Until the application is done with this request."""
        assert self.task is not None
        await asyncio.wait([self.task], timeout=PATIENCE)
        assert self.task.done(), "the application does not come to an end"
        return self

    async def ask(self) -> "Client":
        """Begin, and stay to the end."""
        await self.start().over()
        assert self.task is not None
        self.task.result()
        return self

    async def got(self, content: bytes) -> None:
        """Until this is in the content."""
        await becomes(lambda: content in self.content, repr(content))

    @property
    def status(self) -> int | None:
        """The answer's status; None before its head."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def fields(self) -> list[Field]:
        """The answer's fields."""
        return list(self.messages[0]["headers"])

    def field(self, name: str) -> str | None:
        """The one field of that name."""
        values = [value.decode() for key, value in self.fields if key == name.encode()]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def content(self) -> bytes:
        """What came of the content."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def ended(self) -> bool:
        """Whether the content came to its end."""
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    @property
    def error(self) -> dict[str, Any]:
        """What the envelope holds, its four members being there."""
        error: dict[str, Any] = json.loads(self.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    async def _receive(self) -> Message:
        if self._pieces and self._pieces[0] is not None:
            body = self._pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._pieces)}
        self.listening = True
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.messages.append(message)
        if self._stalling(self):
            self.stalled = True
            await asyncio.Event().wait()


# A step that tells --------------------------------------------------------------------------------


async def nothing(exchange: Exchange) -> None:
    """Do nothing."""


class Options(BaseModel):
    """What a Witness does in its place."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    request: Act = nothing
    response: Act = nothing
    built: Callable[[Tools], None] = lambda tools: None


class Witness:
    """A step of a test: it is in the flow as any other, and does what the test says."""

    def __init__(self, options: Options, tools: Tools) -> None:
        options.built(tools)
        self.on_request = options.request
        self.on_response = options.response


# The house ----------------------------------------------------------------------------------------


def definition(request: Sequence[Any], response: Sequence[Any], **weir: Any) -> str:
    """The text of a definition; `weir` are members of x-weir, `_` standing for `-`."""
    usual = {
        "lifecycle": "AVAILABLE",
        "base-path": "/v1",
        "timeout": "20s",
        "max-body": "64KB",
        "upstream": "${UPSTREAM_URL}",
        "authentication": "pass-through",
        "flows": {"request": request, "response": response},
    }
    given = {name.replace("_", "-"): value for name, value in weir.items()}
    schema = {"type": "object", "properties": {"temperature": {"type": "number"}}}
    reference = {"schema": {"$ref": "#/components/schemas/Request"}}
    post = {"requestBody": {"content": {"application/json": reference}}}
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Chat", "version": "1.0.0"},
            "x-weir": usual | given,
            "paths": {"/v1/chat/completions": {"post": post}},
            "components": {"schemas": {"Request": schema}},
        }
    )


def decoded(request: Sequence[Any], response: Sequence[Any], upstream: str = "http://x", **weir: Any) -> Api:
    """A definition, decoded by real steps; Options of a Witness among the flows stay in their places."""
    plain = ([step for step in flow if isinstance(step, dict)] for flow in (request, response))
    api = parse(
        definition(*plain, **weir),
        file="test.yaml",
        variables={"UPSTREAM_URL": upstream},
        steps=interceptors.options(),
        phases=interceptors.phases(),
    )
    return replace(api, request=_mixed(request, api.request), response=_mixed(response, api.response))


def _mixed(flow: Sequence[Any], steps: Iterable[Step]) -> tuple[Step, ...]:
    real = iter(steps)
    return tuple(next(real) if isinstance(step, dict) else Step("witness", step) for step in flow)


class World:
    """One worker's application, with a ledger at `store_url`, in front of `upstream`.

    `async with` is its life; the log can be read when it is over. `tools` are what its steps are given.
    """

    tools: Tools

    def __init__(
        self,
        store_url: str,
        tokenizer: Tokenizer,
        upstream: str,
        *,
        request: Sequence[Any] = (LIMITED,),
        response: Sequence[Any] = (LOGGED,),
        settings: Settings | None = None,
        **weir: Any,
    ) -> None:
        sys.modules["service.interceptors.witness"] = sys.modules[__name__]
        self.store_url = store_url
        self.worker = Worker()
        self.exchanges: list[Exchange] = []
        self._out = io.StringIO()
        api = decoded([self._spy(), *request], response, upstream, **weir)
        self.app = build(
            settings or Settings(digest_key=Secret("a digest key of the tests")),
            api,
            tokenizer,
            redis_url=store_url,
            logs=Logs(self._out),
            worker=self.worker,
        )
        self._life = AsyncExitStack()

    async def __aenter__(self) -> "World":
        self._handlers = logging.root.handlers[:]
        await self._life.enter_async_context(self.app.lifespan_context(self.app))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.__aexit__(kind, error, trace)
        logging.root.handlers[:] = self._handlers

    def client(self, body: bytes | Sequence[bytes | None] = b"", **how: Any) -> Client:
        """A client of this app."""
        return Client(self.app, body, **how)

    async def quiet(self) -> None:
        """Until nothing is under way."""
        await becomes(lambda: not self.worker.exchanges, "the end of every exchange")

    async def charged(
        self,
        *policies: Mapping[str, Any],
        user: str = "",
        model: str = "gpt-4o",
        key: str = KEY,
        **others: str,
    ) -> dict[str, int]:
        """What stands charged with each of these policies, in tokens or requests.

        `others` are the subject's values in further dimensions.
        """
        credential = "key-" + self.tools.digest(key)[:16]
        values = {"credential": credential, "user": user, "model": model, **others}
        made = [PolicyOptions(**policy).policy() for policy in policies or (TOKENS, CALLS, TOGETHER)]
        wire = open_wire(self.store_url, lua.load(), connections=1)
        charged = {}
        for one in made:
            claim = Claim(one, subject_key(one.per, values, self.tools.digest), 0)
            (standing,) = (await Subjects(wire).peek([claim])).standings
            charged[one.name], fraction = divmod(standing.charged, 1000)
            assert not fraction
        await wire.close()
        return charged

    def reservations(self) -> list[bytes]:
        """The reservations that are open in the ledger, whoever made them."""
        with redis.Redis.from_url(self.store_url) as store:
            fields = [name for key in store.scan_iter("w1:*", _type="hash") for name in store.hkeys(key)]
        return [name for name in fields if name.startswith(b"~") and name != b"~"]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        families = self.tools.metrics.registry.collect()
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return float(sum(one.value for one in samples if labels.items() <= one.labels.items()))

    def written(self) -> str:
        """The log as it is written so far."""
        return self._out.getvalue()

    def records(self, event: str = "") -> list[dict[str, Any]]:
        """The records of an event, of all events where none is named."""
        records = [json.loads(line) for line in self.written().splitlines()]
        return [record for record in records if event in ("", record["event"])]

    def _spy(self) -> Options:
        async def notice(exchange: Exchange) -> None:
            self.exchanges.append(exchange)

        def built(tools: Tools) -> None:
            self.tools = tools

        return Options(request=notice, built=built)
