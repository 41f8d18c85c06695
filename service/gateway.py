"""Gateway: the one path of a request, from its first byte to its last number."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from service.adapters.keyring import Keyring, allows
from service.adapters.logs import Logs
from service.adapters.metrics import Metrics
from service.adapters.threads import Threads
from service.adapters.upstream import Unsent, Upstream, forwarded, returned
from service.domain import chat
from service.domain.api import Api
from service.domain.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Rejection,
    TooLarge,
    UpstreamFailed,
    UpstreamTimeout,
    envelope,
)
from service.domain.exchange import Answer, Exchange
from service.domain.headers import doubled, first
from service.domain.lifecycle import lifecycle_fields, refuse_unpublished
from service.domain.reckoning import Reckoner, unacceptable
from service.domain.stream import EventStream
from service.domain.trace import traced
from service.interceptors import Interceptor
from service.relay import CLOSE, Caller, relay, uninterrupted


class Worker(Protocol):
    """What the path asks of the process it runs in."""

    draining: bool
    exchanges: int


@dataclass(frozen=True, slots=True)
class Route:
    """A path under the base path that Weir serves."""

    name: str
    method: str
    path: str  # below the base path
    is_chat: bool = False


_UPSTREAM_FAULTS = {
    "upstream_refused": "refused",
    "upstream_broken": "broken",
    "timeout": "timeout",
    "upstream_error": "status",
}

_ONCE = (b"authorization", b"content-type", b"content-encoding", b"content-length")

CHAT = Route("chat", "POST", "/chat/completions", is_chat=True)
MODELS = Route("models", "GET", "/models")
OTHER = Route("other", "", "")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the path is made of, the same for every route."""

    api: Api
    request_flow: Sequence[Interceptor]
    response_flow: Sequence[Interceptor]
    keyring: Keyring
    upstream: Upstream
    upstream_key: str | None  # put upstream instead of the caller's own
    threads: Threads
    reckoner: Reckoner
    metrics: Metrics
    logs: Logs
    worker: Worker


class Gateway:
    """An ASGI app: authenticate, request flow, forward, response flow, relay; then settle, log, meter.

    A rejection leaves the path where it is raised and joins it again at the response flow.
    """

    def __init__(self, parts: Parts, route: Route) -> None:
        self._parts = parts
        self._route = route
        self._path = parts.api.base_path + route.path
        self._standing_fields = lifecycle_fields(parts.api)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one exchange."""
        exchange = _received(scope, self._route)
        self._parts.metrics.started(exchange.route)
        self._parts.worker.exchanges += 1
        try:
            with Caller(receive, exchange) as caller:
                exchange.answer = await self._ask(exchange, caller)
                await self._answer(exchange, send)
        except asyncio.CancelledError:
            if exchange.outcome == "open":
                exchange.outcome = "stopped"
            raise
        except Exception as error:
            await self._apologise(exchange, send, error)
        finally:
            await uninterrupted(self._end(exchange))

    async def _ask(self, exchange: Exchange, caller: Caller) -> Answer:
        """Upstream's answer, or our own refusal."""
        try:
            refuse_unpublished(self._parts.api)
            if (exchange.method, exchange.path) != (self._route.method, self._path):
                raise NotFound(f"Invalid URL ({exchange.method} {exchange.path})")
            if name := doubled(exchange.headers, _ONCE):
                raise InvalidRequest(f"There is more than one header '{name.decode()}'.")
            exchange.credential = self._parts.keyring.identify(first(exchange.headers, b"authorization"))
            await self._read(exchange, caller)
            for step in self._parts.request_flow:
                await step.on_request(exchange)
            return await self._forward(exchange)
        except Rejection as rejection:
            if exchange.outcome == "open":
                exchange.outcome = _outcome(rejection)
            fields = [(b"content-type", b"application/json"), *rejection.headers]
            return Answer(rejection.status, fields, rejection.body(), own=True)

    async def _read(self, exchange: Exchange, caller: Caller) -> None:
        """Take the body in. Raises UnsupportedMedia, TooLarge, InvalidRequest or Forbidden."""
        api = self._parts.api
        length = first(exchange.headers, b"content-length") or b"0"
        if length.isdigit() and int(length) > api.max_body:
            raise TooLarge(f"The request body is larger than {api.max_body} bytes.", headers=[CLOSE])
        exchange.body = await caller.body(most=api.max_body, timeout=api.timeout)
        if not self._route.is_chat:
            return
        chat.refuse_other_media(exchange.headers)
        body = exchange.body
        exchange.chat = await self._parts.threads.read(lambda: chat.parse(body), len(body))
        model = exchange.chat.model
        if exchange.credential and not allows(exchange.credential, model):
            raise Forbidden(
                f"The model `{model}` is not allowed for this key.", param="model", code="model_not_allowed"
            )

    async def _forward(self, exchange: Exchange) -> Answer:
        """Send the request on. Raises Unsent, UpstreamFailed or UpstreamTimeout."""
        parts, asked = self._parts, exchange.chat
        hide_usage = asked is not None and asked.stream and not asked.include_usage
        if asked is not None and hide_usage:
            exchange.body = chat.asking_for_usage(exchange.body, has_options=asked.has_options)
        path = exchange.path.removeprefix(parts.api.base_path)
        if exchange.query:
            path += "?" + exchange.query.decode("latin-1")
        fields = forwarded(exchange.headers, key=parts.upstream_key)
        answer = await parts.upstream.send(
            *(exchange.method, path, fields, exchange.body),
            timeout=parts.api.timeout,
            leaving=exchange.leaves,
        )
        exchange.times.head = exchange.clock()
        if refusal := unacceptable(answer, our_key=parts.upstream_key is not None):
            exchange.answer = answer
            await _hang_up(exchange)
            exchange.outcome = "upstream_error"
            exchange.notes["upstream_status"] = answer.status
            raise refusal
        answer.headers = returned(answer.headers)
        if answer.is_stream():
            parts.reckoner.follow(exchange, EventStream(hide_usage=hide_usage))
        return answer

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        """The response flow, then the relay."""
        answer = exchange.answer
        assert answer is not None
        answer.headers = [*answer.headers, *exchange.adds, *self._standing_fields]
        answer.headers.append((b"x-request-id", exchange.id.encode()))
        if self._parts.worker.draining:
            answer.headers.append(CLOSE)
        for step in self._parts.response_flow:
            exchange.responded += 1
            await step.on_response(exchange)
        await relay(exchange, send, timeout=self._parts.api.timeout)

    async def _apologise(self, exchange: Exchange, send: Send, error: Exception) -> None:
        """A fault of ours: said in the log, and to the client where nothing was said yet."""
        exchange.outcome = "failed"
        self._parts.logs.error("exchange.failed", error=error, id=exchange.id)
        if not exchange.started:
            await _hang_up(exchange)
            await self._reckon(exchange)  # what nobody will see was used all the same
            body = envelope("The gateway had an internal error.", type="server_error")
            fields = [(b"content-type", b"application/json"), (b"x-request-id", exchange.id.encode())]
            exchange.answer = Answer(500, fields, body, own=True)
            await relay(exchange, send, timeout=self._parts.api.timeout)

    async def _end(self, exchange: Exchange) -> None:
        """Let go of upstream, reckon, keep the promises, count; a fault in one does not stop the next."""
        untold = [step.on_response for step in self._parts.response_flow[exchange.responded :]]
        faults: list[Exception] = []
        for part in (_hang_up, self._reckon, *untold):
            try:
                await part(exchange)
            except Exception as error:
                faults.append(error)
        exchange.times.ended = exchange.clock()
        for fault in [*faults, *await exchange.end()]:
            self._parts.logs.error("exchange.ending", error=fault, id=exchange.id)
        if kind := _UPSTREAM_FAULTS.get(exchange.outcome):
            self._parts.metrics.upstream_error(kind)
        self._parts.metrics.ended(exchange)
        self._parts.worker.exchanges -= 1

    async def _reckon(self, exchange: Exchange) -> None:
        if exchange.usage is None:
            exchange.usage = await self._parts.reckoner.reckon(exchange)


def _received(scope: Scope, route: Route) -> Exchange:
    """The exchange of a request whose head is here."""
    trace, fields = traced(scope["headers"])
    return Exchange(
        *(scope["method"], scope["path"], scope["query_string"], fields),
        peer=(scope.get("client") or ("",))[0],
        route=route.name,
        trace=trace,
    )


def _outcome(rejection: Rejection) -> str:
    match rejection:
        case Unsent():
            return "upstream_refused"
        case UpstreamTimeout():
            return "timeout"
        case UpstreamFailed():
            return "upstream_broken"
    return "rejected"


async def _hang_up(exchange: Exchange) -> None:
    if exchange.answer is not None and exchange.answer.close is not None:
        await exchange.answer.close()
