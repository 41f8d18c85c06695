"""Exchange: one request and its answer, from the first byte to the last number."""

import secrets
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from service.domain.chat import Chat
from service.domain.headers import Field
from service.domain.stream import EventStream
from service.domain.trace import Trace, begun
from service.domain.usage import Estimate, Usage

Ending = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Credential:
    """Who calls: an id that may be logged, the models it may use (None: all), and its plan, if it has one."""

    id: str
    models: tuple[str, ...] | None = None
    plan: str = ""


@dataclass(slots=True)
class Answer:
    """Status, fields and content on their way back.

    `body` is the whole content, or what arrives piece by piece; `close` gives back what the answer
    holds of upstream, and may be called twice.
    """

    status: int
    headers: list[Field]
    body: bytes | AsyncIterator[bytes]
    own: bool = False  # made by Weir, not by upstream
    close: Callable[[], Awaitable[None]] | None = None

    def is_stream(self) -> bool:
        """Whether the content is a stream of server-sent events."""
        return not isinstance(self.body, bytes)


@dataclass(slots=True)
class Times:
    """Moments of an exchange, in seconds of a monotonic clock; None until they come."""

    received: float
    sent: float | None = None  # given to a connection to upstream
    head: float | None = None  # upstream's head is here
    first_byte: float | None = None  # the first byte of content left for the client
    ended: float | None = None


@dataclass(slots=True, eq=False)
class Exchange:
    """What travels along the path. Steps read it, change it, and leave promises with `at_end`."""

    method: str
    path: str
    query: bytes
    headers: list[Field]
    body: bytes = b""
    clock: Callable[[], float] = time.perf_counter
    id: str = field(default_factory=lambda: "req_" + secrets.token_hex(16))
    trace: Trace = field(default_factory=begun)
    peer: str = ""  # the address at the other end of the connection, empty where it has none
    route: str = "other"  # the name of the route in metrics and logs
    chat: Chat | None = None  # what the body says, on the chat route
    credential: Credential | None = None
    user: str | None = None  # whom the request is made for, as the rate limiter understood it
    estimate: Estimate | None = None
    usage: Usage | None = None  # what was really used, once it is known
    answer: Answer | None = None
    adds: list[Field] = field(default_factory=list)  # fields the answer will carry besides its own
    produced: Callable[[], Awaitable[Usage]] | None = None  # what was used so far, while a stream flows
    stream: EventStream | None = None  # the reader of a streamed answer
    responded: int = 0  # steps of the response flow that have begun
    started: bool = False  # the answer's head has left
    outcome: str = "open"  # how it ended: one of service.domain.usage.OUTCOMES
    notes: dict[str, object] = field(default_factory=dict)  # facts for the log
    times: Times = field(init=False)
    _endings: list[Ending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.times = Times(received=self.clock())

    def leaves(self) -> None:
        """The request is on its way upstream, as from now."""
        self.times.sent = self.clock()

    def at_end(self, ending: Ending) -> None:
        """Run this when the exchange is over, however it ended: first asked, first run."""
        self._endings.append(ending)

    async def end(self) -> list[Exception]:
        """Keep the promises. An error in one does not stop the next; all are returned."""
        errors: list[Exception] = []
        while self._endings:
            try:
                await self._endings.pop(0)()
            except Exception as error:
                errors.append(error)
        return errors

    def variables(self) -> Mapping[str, str]:
        """What a header's value may name at run time."""
        return {
            "credential": self.credential.id if self.credential else "",
            "user": self.user or (self.chat.user if self.chat else None) or "",
            "request.id": self.id,
            "trace.id": self.trace.id,
            "trace.span": self.trace.span,
            "model": self.chat.model if self.chat else "",
        }

    def __del__(self) -> None:
        if self._endings:
            warnings.warn(f"{self.id} was dropped with promises to keep", ResourceWarning, stacklevel=1)
