"""Server: the simulated model over HTTP, as a plain ASGI application.

No framework stands between: it is what other things are measured against.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

from service.simulator import replies
from service.simulator.behaviour import Behaviour
from service.simulator.model import Model
from service.simulator.replies import Reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class Stats:
    """What was done. `aborted` are the answers that did not get to their end, whoever's fault it was."""

    requests: int = 0
    open: int = 0
    completed: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Simulator:
    """One simulated model and its counters."""

    def __init__(
        self,
        model: Model,
        usual: Behaviour,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._model = model
        self._usual = usual
        self._clock = clock
        self._sleep = sleep
        self._stats = Stats()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        route = (scope["method"], scope["path"])
        if route == ("POST", "/v1/chat/completions"):
            await self._chat(scope, receive, send)
        elif route == ("GET", "/simulator/stats"):
            await _send_whole(replies.document(asdict(self._stats)), send)
        else:
            await _send_whole(replies.elsewhere(*route, scope["headers"]), send)

    async def _chat(self, scope: Message, receive: Receive, send: Send) -> None:
        self._stats.requests += 1
        self._stats.open += 1
        complete = False
        try:
            complete = await self._exchange(scope, receive, send)
        finally:
            self._stats.open -= 1
            self._stats.completed += complete
            self._stats.aborted += not complete

    async def _exchange(self, scope: Message, receive: Receive, send: Send) -> bool:
        """Whether the answer got to its end."""
        began = self._clock()
        body = await _body(receive)
        if body is None:
            return False
        reply = replies.completion(self._model, scope["headers"], body, self._usual)
        reply.headers.append((b"openai-processing-ms", b"%d" % (1000 * (self._clock() - began))))
        self._stats.prompt_tokens += reply.prompt
        if reply.plain:
            self._stats.completion_tokens += await _send_whole(reply, send)
            return True
        return await _while_there(receive, self._deliver(reply, send))

    async def _deliver(self, reply: Reply, send: Send) -> bool:
        """Send a reply, with the faults it was asked for; whether it got to its end."""
        behaviour = reply.behaviour
        if behaviour.latency:
            await self._sleep(behaviour.latency)
        if behaviour.stall_head:
            await asyncio.Event().wait()
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        for sent, event in enumerate(reply.events):
            if sent == behaviour.cut:
                return False  # the server closes the connection of an answer that is left unfinished
            if sent == behaviour.stall:
                await asyncio.Event().wait()
            if sent == behaviour.end:
                break
            await send({"type": "http.response.body", "body": event.data, "more_body": True})
            self._stats.completion_tokens += event.tokens
            if behaviour.rate and event.tokens:
                await self._sleep(event.tokens / behaviour.rate)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


async def _send_whole(reply: Reply, send: Send) -> int:
    """Send a plain reply; the tokens it brought."""
    (event,) = reply.events
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": event.data})
    return event.tokens


async def _lifespan(receive: Receive, send: Send) -> None:
    for _ in ("startup", "shutdown"):
        message = await receive()
        await send({"type": message["type"] + ".complete"})


async def _body(receive: Receive) -> bytes | None:
    """The request's content; None where the client left before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _while_there(receive: Receive, delivery: Awaitable[bool]) -> bool:
    """Deliver for as long as the client is there."""
    delivering, leaving = asyncio.ensure_future(delivery), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((delivering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return delivering.done() and delivering.result()
    finally:
        for task in (delivering, leaving):
            task.cancel()
        await asyncio.wait((delivering, leaving))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
