"""Completion: an answer of the simulated model, as one JSON object and as a stream of events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

DONE = b"data: [DONE]\n\n"


class Event(NamedTuple):
    """Bytes to send at once, and the tokens of the completion that they bring."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One of n answers: its text in pieces, or the function it calls, the pieces being the arguments."""

    pieces: tuple[str, ...]
    tokens: int
    finish: str
    function: str | None = None
    call: str = ""  # its id

    def message(self) -> dict[str, Any]:
        """The choice as the message of a plain answer."""
        text = "".join(self.pieces)
        if self.function is None:
            return {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [self._tool_call(text)]}

    def opening(self) -> Event:
        """The first delta of a stream; the tokens of a call are counted when it begins."""
        if self.function is None:
            return Event(_json({"role": "assistant", "content": "", "refusal": None}))
        calls = [{"index": 0, **self._tool_call("")}]
        delta = {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
        return Event(_json(delta), self.tokens)

    def delta(self, piece: str) -> Event:
        """The delta that brings a piece."""
        if self.function is None:
            return Event(_json({"content": piece}), 1)
        return Event(_json({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))

    def _tool_call(self, arguments: str) -> dict[str, Any]:
        function = {"name": self.function, "arguments": arguments}
        return {"id": self.call, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer; `prompt` is in tokens, `usage` what the answer reports, None for nothing."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    prompt: int
    usage: dict[str, Any] | None

    @property
    def tokens(self) -> int:
        """The tokens of all choices."""
        return sum(choice.tokens for choice in self.choices)

    def body(self) -> bytes:
        """The answer as one JSON object."""
        choices = [
            {"index": index, "message": choice.message(), "logprobs": None, "finish_reason": choice.finish}
            for index, choice in enumerate(self.choices)
        ]
        document = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        usage = {} if self.usage is None else {"usage": self.usage}
        return _json(document | usage | {"service_tier": "default", "system_fingerprint": "fp_simulated"})

    def events(self, *, include_usage: bool) -> Iterator[Event]:
        """The answer as server-sent events, the choices taking turns."""
        choices = list(enumerate(self.choices))
        head = self._head()
        usage = b',"usage":null}' if include_usage else b"}"

        def chunk(index: int, delta: Event, finish: bytes = b"null") -> Event:
            choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}' % (
                index,
                delta.data,
                finish,
            )
            return Event(b"%b[%b]%b\n\n" % (head, choice, usage), delta.tokens)

        for index, choice in choices:
            yield chunk(index, choice.opening())
        for at in range(max(len(choice.pieces) for choice in self.choices)):
            for index, choice in choices:
                if at < len(choice.pieces):
                    yield chunk(index, choice.delta(choice.pieces[at]))
        for index, choice in choices:
            yield chunk(index, Event(b"{}"), b'"%b"' % choice.finish.encode())
        if include_usage and self.usage is not None:
            yield Event(b'%b[],"usage":%b}\n\n' % (head, _json(self.usage)))
        yield Event(DONE)

    def _head(self) -> bytes:
        """How every chunk begins, up to its choices."""
        return (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"service_tier":"default","system_fingerprint":"fp_simulated","choices":'
        ) % (self.id.encode(), self.created, _json(self.model))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
