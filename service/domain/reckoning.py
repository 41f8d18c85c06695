"""Reckoning: what an exchange used, decided from how it ended and what was seen of the answer."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from service.domain.errors import UpstreamFailed
from service.domain.exchange import Answer, Exchange
from service.domain.stream import EventStream, produced
from service.domain.tokens import Tokenizer
from service.domain.usage import NOTHING, Usage, provided

INLINE = 8_192  # bytes of a stream whose tokens are counted on the event loop

Count = Callable[[str], int]  # text to tokens
FREE = ("rejected", "upstream_refused", "upstream_error")  # outcomes in which nothing was produced


class Produced:
    """The tokens of a stream so far, counted part by part, each part once."""

    def __init__(self, stream: EventStream, count: Count) -> None:
        self._stream = stream
        self._count = count
        self._tokens = 0

    def tokens(self) -> int:
        """Tokens until now; in proportion for what the stream did not keep."""
        if text := self._stream.drain():
            self._tokens += self._count(text)
        kept, dropped = self._stream.kept, self._stream.dropped
        return self._tokens if not dropped or not kept else self._tokens * (kept + dropped) // kept


class Reckoner:
    """Says what exchanges used, counting with the tokenizer where the provider does not say."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def follow(self, exchange: Exchange, stream: EventStream) -> None:
        """The exchange's answer is this stream: `exchange.produced` says from now on what was used so far."""
        produced = Produced(stream, self._count(exchange))
        exchange.stream = stream
        exchange.produced = lambda: Usage(self._prompt(exchange), produced.tokens(), "local")

    def reckoning(self, exchange: Exchange) -> Callable[[], Usage]:
        """What will say what was used, in whatever thread; `exchange.produced` is over."""
        streamed, exchange.produced = exchange.produced, None
        prompt = partial(self._prompt, exchange)
        return partial(reckon, exchange, streamed=streamed, prompt=prompt, count=self._count(exchange))

    def _prompt(self, exchange: Exchange) -> int:
        """The prompt's tokens: as estimated, or counted now where nobody asked before."""
        if exchange.estimate is not None:
            return exchange.estimate.prompt
        if exchange.chat is None:
            return 0
        return self._tokenizer.prompt(exchange.chat.document, exchange.chat.model).tokens

    def _count(self, exchange: Exchange) -> Count:
        model = exchange.chat.model if exchange.chat else ""
        return partial(self._tokenizer.count, model=model)


def is_long(exchange: Exchange) -> bool:
    """Whether reckoning may take so long that it should not be done on the event loop."""
    if exchange.stream is not None:
        return exchange.stream.usage is None and exchange.stream.kept > INLINE
    body = exchange.answer.body if exchange.answer else b""
    return isinstance(body, bytes) and len(body) > 8 * INLINE


def reckon(
    exchange: Exchange, *, streamed: Callable[[], Usage] | None, prompt: Callable[[], int], count: Count
) -> Usage:
    """What was used. `streamed` says what a stream produced, `prompt` counts the prompt and `count` a text,
    each asked only where needed.

    The provider's numbers count where they are there and sane; else what was seen is counted here. An
    answer that refuses used nothing. Of a request that was sent and never answered nobody knows, so
    what was reserved stands.
    """
    answer = exchange.answer
    if exchange.chat is None or exchange.times.sent is None or exchange.outcome in FREE:
        return NOTHING
    if exchange.stream is not None and streamed is not None:
        return exchange.stream.usage or streamed()
    if answer is None or answer.own:
        return _as_reserved(exchange)
    if answer.status >= 400 or not isinstance(answer.body, bytes):
        return NOTHING
    document = _document(answer.body)
    return provided(document) or Usage(prompt=prompt(), completion=count(produced(document)), source="local")


def unacceptable(answer: Answer, *, our_key: bool) -> UpstreamFailed | None:
    """Why a client may not see upstream's answer; None where it may.

    A 5xx passes where it speaks OpenAI's envelope. With our own key upstream (`our_key`), its 401 and 403
    are not the client's fault.
    """
    status = answer.status
    if our_key and status in (401, 403):
        return UpstreamFailed("The upstream refused the gateway's key.")
    if status < 300 or 400 <= status < 500:
        return None
    if status >= 500 and isinstance(answer.body, bytes) and _speaks_openai(answer.body):
        return None
    return UpstreamFailed(f"The upstream answered {status}.")


def _speaks_openai(body: bytes) -> bool:
    error = _document(body).get("error")
    return isinstance(error, Mapping) and isinstance(error.get("message"), str)


def _as_reserved(exchange: Exchange) -> Usage:
    estimate = exchange.estimate
    if estimate is None:
        return NOTHING
    return Usage(prompt=estimate.prompt, completion=estimate.completion, source="reservation")


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, Mapping) else {}
