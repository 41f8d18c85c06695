import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.domain.tokens import Tokenizer
from service.simulator import application
from service.simulator.server import ASGIApp


@dataclass
class Answer:
    """What came back to a client that speaks ASGI by hand."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of the stream's events, parsed; [DONE] as it is."""
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        data = [line.removeprefix("data: ") for line in lines]
        return [event if event == "[DONE]" else json.loads(event) for event in data]


@dataclass
class Client:
    """Speaks to the simulator. `leave` makes the client go; `waited` are the seconds it was made to wait."""

    app: ASGIApp
    waited: list[float]

    async def send(
        self,
        document: object = None,
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        leave_after: int | None = None,
    ) -> Answer:
        """Send a request; leave after so many chunks, before the head where that is -1."""
        answer, leaving = Answer(), asyncio.Event()
        fields = {"authorization": "Bearer sk-test"} | (headers or {})
        body = [json.dumps(document).encode()] if document is not None else [b""]

        async def receive() -> dict[str, Any]:
            if body:
                return {"type": "http.request", "body": body.pop()}
            if leave_after == -1:
                leaving.set()
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], dict(message["headers"])
                return
            answer.ended = not message.get("more_body", False)
            if message["body"]:
                answer.chunks.append(message["body"])
            if len(answer.chunks) == leave_after:
                leaving.set()

        encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": encoded}
        await asyncio.wait_for(self.app(scope, receive, send), timeout=10)
        return answer

    async def stats(self) -> dict[str, int]:
        answer = await self.send(method="GET", path="/simulator/stats", headers={"authorization": ""})
        stats: dict[str, int] = answer.json
        return stats


@pytest.fixture
def simulated(tokenizer: Tokenizer) -> Callable[..., Client]:
    """Makes a client of a simulator with the given settings."""

    def make(**settings: Any) -> Client:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)
            await asyncio.sleep(0)

        return Client(application(tokenizer, clock=lambda: 1_700_000_000.0, sleep=sleep, **settings), waited)

    return make


@pytest.fixture
def client(simulated: Callable[..., Client]) -> Client:
    return simulated()
