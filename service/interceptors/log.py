"""log: one record when a request is in, and one when its exchange is over, however it ended."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Literal

from pydantic import BaseModel

from service.domain.durations import durations
from service.domain.exchange import Exchange
from service.interceptors import Tools

_MOST_CHARACTERS = 2048  # of a truncated body
_MOST_NAME = 256  # characters of what a client may name as it likes
_MOST_STREAMED = 1_048_576  # bytes of a stream that a full body has
_KEPT = "kept"  # the note that holds what was kept of a stream
_ASKED = "asked"  # the note that holds what the journal is told of a request's body


class Options(BaseModel, extra="forbid", frozen=True):
    """Bodies, and how a user is shown.

    `truncated` bodies are the first 2,048 characters. `digest` is keyed: the same user has the same
    digest, and nobody without the key can tell whose it is.
    """

    bodies: Literal["none", "truncated", "full"] = "none"
    user: Literal["digest", "clear"] = "digest"


class Kept:
    """A stream on its way through, and the first `most` bytes of it."""

    def __init__(self, body: AsyncIterator[bytes], most: int) -> None:
        self._body = body
        self._most = most
        self.start = bytearray()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._body)
        if len(self.start) < self._most:
            self.start += chunk[: self._most - len(self.start)]
        return chunk


class Log:
    """Writes `exchange.request` in the request flow; in the response flow, promises `exchange.response`.

    The journal is told the latter too, with the beginnings of both bodies where bodies are wanted.
    """

    def __init__(self, options: Options, tools: Tools) -> None:
        self._bodies = options.bodies
        self._clear = options.user == "clear"
        self._digest = tools.digest
        self._logs = tools.logs
        self._journal = tools.journal

    async def on_request(self, exchange: Exchange) -> None:
        """Say what was asked, and by whom."""
        said = {"method": exchange.method, "path": exchange.path[:_MOST_NAME], **self._who(exchange)}
        said["body_bytes"] = len(exchange.body)
        self._logs.info("exchange.request", **said, **self._content(exchange.body))
        if begun := self._begun(exchange.body):
            exchange.notes[_ASKED] = {f"request_{name}": fact for name, fact in begun.items()}

    async def on_response(self, exchange: Exchange) -> None:
        """Promise to say how it ended, when the usage and the outcome are known."""
        answer = exchange.answer
        if self._bodies != "none" and answer and not isinstance(answer.body, bytes):
            most = _MOST_STREAMED if self._bodies == "full" else 4 * _MOST_CHARACTERS + 1
            exchange.notes[_KEPT] = answer.body = Kept(aiter(answer.body), most)
        exchange.at_end(partial(self._ended, exchange))

    async def _ended(self, exchange: Exchange) -> None:
        notes = {name: fact for name, fact in exchange.notes.items() if name not in (_KEPT, _ASKED)}
        said = {**notes, **self._who(exchange), **_tokens(exchange), "outcome": exchange.outcome}
        said["status"] = exchange.answer.status if exchange.answer else None
        said["ms"] = _milliseconds(exchange)
        body, asked = _produced(exchange), exchange.notes.get(_ASKED)
        self._logs.info("exchange.response", **said, **self._content(body))
        self._journal({**said, **(asked if isinstance(asked, dict) else {}), **self._begun(body)})

    def _who(self, exchange: Exchange) -> dict[str, object]:
        chat = exchange.chat
        return {
            "id": exchange.id,
            "trace": exchange.trace.id,
            "span": exchange.trace.span,
            "parent": exchange.trace.parent,
            "route": exchange.route,
            "credential": exchange.credential.id if exchange.credential else None,
            "user": self._user(exchange.user or (chat.user if chat else None)),
            "model": chat.model[:_MOST_NAME] if chat else None,
            "stream": chat.stream if chat else None,
        }

    def _user(self, user: str | None) -> str | None:
        if not user:
            return None
        return user[:_MOST_NAME] if self._clear else self._digest(user)

    def _content(self, body: bytes | str) -> dict[str, object]:
        """The body as far as it is wanted, and whether that is not all of it."""
        return {"body": body} if body and self._bodies == "full" else self._begun(body)

    def _begun(self, body: bytes | str) -> dict[str, object]:
        """The body's beginning where it is wanted, and whether that is not all of it."""
        if self._bodies == "none" or not body:
            return {}
        start = body[: 4 * _MOST_CHARACTERS]  # no character takes more than 4 bytes
        text = start if isinstance(start, str) else start.decode(errors="replace")
        cut = len(text) > _MOST_CHARACTERS or len(body) > len(start)
        return {"body": text[:_MOST_CHARACTERS], "body_truncated": cut}


def _tokens(exchange: Exchange) -> dict[str, object]:
    """The estimate, the usage and who says so; null where unknown."""
    estimate, usage = exchange.estimate, exchange.usage
    said: dict[str, object] = {"estimate": None, "used": None, "source": usage.source if usage else None}
    if estimate:
        said["estimate"] = {"prompt": estimate.prompt, "completion": estimate.completion}
    if usage:
        said["used"] = {
            kind: getattr(usage, kind) for kind in ("prompt", "completion", "cached", "reasoning")
        }
    return said


def _milliseconds(exchange: Exchange) -> dict[str, float | None]:
    """What Durations holds, in milliseconds with three decimals."""
    spent = durations(exchange)
    return {
        name: None if seconds is None else round(seconds * 1000, 3)
        for name, seconds in (
            ("total", spent.total),
            ("own", spent.own),
            ("upstream", spent.upstream),
            ("first_byte", spent.first_byte),
        )
    }


def _produced(exchange: Exchange) -> bytes:
    """What upstream answered: the whole body, or what was kept of a stream."""
    if exchange.answer and isinstance(exchange.answer.body, bytes):
        return exchange.answer.body
    kept = exchange.notes.get(_KEPT)
    return bytes(kept.start) if isinstance(kept, Kept) else b""
