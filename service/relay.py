"""Relay: an answer on its way to the client, and the client listened to meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any

import anyio
from starlette.types import Message, Receive, Send

from service.domain.errors import Rejection, TooLarge, UpstreamFailed, UpstreamTimeout, envelope
from service.domain.exchange import Answer, Exchange
from service.domain.headers import Field

STALLED = "timeout while the client did not read"
CLOSE = (b"connection", b"close")


class Caller:
    """The client's side of an exchange. Within it, the client's leaving cancels what is under way.

    The exchange ends as `client_gone` then, unless it is decided already how it ends, and the block is left
    as if it had come to its end.
    """

    def __init__(self, receive: Receive, exchange: Exchange) -> None:
        self._receive = receive
        self._exchange = exchange
        self._scope = anyio.CancelScope()
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> "Caller":
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._watcher is not None:
            self._watcher.cancel()
        return bool(self._scope.__exit__(kind, error, trace))

    async def body(self, *, most: int, timeout: float) -> bytes:
        """The whole body, at most so many bytes, within so many seconds; from then on, listen.

        Raises TooLarge, or Rejection with status 408.
        """
        pieces, size, more = [], 0, True
        try:
            async with asyncio.timeout(timeout):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self._leave()
                        await asyncio.Event().wait()  # where the cancellation arrives
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > most:
                        raise TooLarge(f"The request body is larger than {most} bytes.", headers=[CLOSE])
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Rejection(
                "The request body did not arrive in time.",
                status=408,
                type="invalid_request_error",
                headers=[CLOSE],
            ) from None
        self._watcher = asyncio.create_task(self._watch())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if self._exchange.outcome == "open":
            self._exchange.outcome = "client_gone"
        self._scope.cancel()


async def relay(exchange: Exchange, send: Send, *, timeout: float) -> None:
    """Send the answer's head, then its content; a stream piece by piece as it comes.

    `timeout` (s) bounds each wait, whichever side is slow.
    """
    answer = exchange.answer
    assert answer is not None
    exchange.started = True
    try:
        if isinstance(answer.body, bytes):
            await _send_whole(exchange, answer, answer.body, send, timeout)
        else:
            await _send_stream(exchange, answer, answer.body, send, timeout)
    except TimeoutError:
        exchange.notes["stalled"] = STALLED
        outcome = "client_gone"
    else:
        outcome = "complete" if answer.status < 400 else "upstream_error"
    if exchange.outcome == "open":
        exchange.outcome = outcome


async def _send_whole(exchange: Exchange, answer: Answer, body: bytes, send: Send, timeout: float) -> None:
    length = (b"content-length", b"%d" % len(body))
    async with asyncio.timeout(timeout):
        await send(_head(answer, length))
        exchange.times.first_byte = exchange.clock()
        await send({"type": "http.response.body", "body": body})


async def _send_stream(
    exchange: Exchange, answer: Answer, body: AsyncIterator[bytes], send: Send, timeout: float
) -> None:
    async with asyncio.timeout(timeout):
        await send(_head(answer))
    last = await _flow(exchange, answer, body, send, timeout)
    async with asyncio.timeout(timeout):
        await send({"type": "http.response.body", "body": last})


def _head(answer: Answer, *more: Field) -> Message:
    return {"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *more]}


async def _flow(
    exchange: Exchange, answer: Answer, body: AsyncIterator[bytes], send: Send, timeout: float
) -> bytes:
    """Relay what comes; returns what is still to be sent, be it the error event of a stream cut short.

    Raises TimeoutError where it is the client that is slow.
    """
    stream, loop, sending = exchange.stream, asyncio.get_running_loop(), False
    assert stream is not None
    fault: Rejection = UpstreamFailed("The upstream ended the stream before it was complete.")
    try:
        async with asyncio.timeout(timeout) as limit:
            async for chunk in body:
                if out := stream.feed(chunk):
                    sending = True
                    await send({"type": "http.response.body", "body": out, "more_body": True})
                    sending = False
                    if exchange.times.first_byte is None:
                        exchange.times.first_byte = exchange.clock()
                limit.reschedule(loop.time() + timeout)
        if stream.done or stream.failed or answer.status >= 400:
            return stream.finish()
    except TimeoutError:
        if sending:
            raise
        if stream.done or stream.failed:
            return stream.finish()
        fault = UpstreamTimeout("The upstream stopped sending.")
    except (UpstreamFailed, UpstreamTimeout) as raised:
        if stream.done or stream.failed:  # what was to be said is said
            return stream.finish()
        fault = raised
    return _cut(exchange, fault)


def _cut(exchange: Exchange, fault: Rejection) -> bytes:
    """An error event, because a clean end would look like success to every SDK."""
    exchange.outcome = "timeout" if isinstance(fault, UpstreamTimeout) else "upstream_broken"
    event = envelope(fault.message, type=fault.type, code=fault.code)
    return b"\n\ndata: " + event + b"\n\n"


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do work to its end, whatever cancels us meanwhile; be cancelled when it is done."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
