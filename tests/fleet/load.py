"""Load: clients that send one request after the other, and what they heard."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fire.shots import Heard, send
from tests.fleet.requests import Request

CLIENTS = 32


@dataclass(slots=True)
class Exchange:
    """A request on its way, or at its end; moments are counted in what happened to the load."""

    request: Request
    heard: Heard | None = None
    during: set[str] = field(default_factory=set)  # what went on while it was open
    answered_in: str = ""  # what went on when it ended

    @property
    def failed(self) -> bool:
        """Whether its client waited and was not answered by a gateway to the end."""
        heard = self.heard
        return heard is not None and not self.request.leaves and (heard.body is None or heard.id is None)

    @property
    def error(self) -> dict[str, Any]:
        """The error that it was answered with."""
        body = self.heard.body if self.heard else None
        if self.heard is None or self.heard.status in (None, 200) or not body:
            return {}
        found: dict[str, Any] = json.loads(body)["error"]
        return found

    @property
    def completion(self) -> int:
        """Tokens of the answer that reached the client."""
        body = (self.heard and self.heard.body) or b""
        if not self.request.asked["stream"]:
            return int(json.loads(body)["usage"]["completion_tokens"])
        return body.count(b'"delta":{"content":"')


class Load:
    """CLIENTS clients, which send as many of the requests as are released."""

    def __init__(self, url: str, requests: Sequence[Request]) -> None:
        self._url = url
        self._waiting = iter(requests)
        self._left = 0
        self._news = asyncio.Condition()
        self.exchanges: list[Exchange] = []
        self._now = ""
        self._ended = self._awaited = 0

    def begins(self, act: str) -> None:
        """This is what goes on from now on."""
        self._now = act
        for one in self.exchanges:
            if one.heard is None:
                one.during.add(act)

    async def release(self, count: int) -> None:
        """Let so many more be sent."""
        async with self._news:
            self._left += count
            self._news.notify_all()

    async def until(self, count: int) -> None:
        """Wait until so many are over."""
        self._awaited = count
        async with self._news:
            await self._news.wait_for(lambda: self._ended >= count)

    async def run(self) -> None:
        """Be all clients, until every request was sent and is over."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._be_client())

    async def _be_client(self) -> None:
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self._left > 0)
                self._left -= 1
                request = next(self._waiting, None)
                self._left += request is None  # the others are to see the end too
            if request is None:
                return
            exchange = Exchange(request, during={self._now})
            self.exchanges.append(exchange)
            exchange.heard = await send(self._url, request.shot)
            exchange.answered_in = self._now
            self._ended += 1
            if self._ended == self._awaited:
                async with self._news:
                    self._news.notify_all()
