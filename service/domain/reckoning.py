"""Reckoning: what an exchange used, decided from how it ended and what was seen of the answer."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from service.domain.errors import UpstreamFailed
from service.domain.exchange import Answer, Exchange
from service.domain.produced import (
    Count,
    Piece,
    Said,
    answered,
    document_of,
    heard,
    streamed,
    tails,
    tokens,
)
from service.domain.stream import EventStream
from service.domain.tokens import Tokenizer
from service.domain.usage import NOTHING, Usage, provided

T = TypeVar("T")

LOOK = 65_536  # bytes of an answer that are looked through for its usage where one stands

FREE = ("rejected", "upstream_refused", "upstream_error")  # outcomes in which nothing was produced


class Run(Protocol):
    """Does work without holding up others; `size` is the most characters that it counts."""

    async def __call__(self, work: Callable[[], T], size: int) -> T:
        """What the work returns, or raises."""


class Produced:
    """The tokens of a stream so far, each of its texts counted once as far as its tokens stand.

    Several may ask at once: each is told of what was there when it asked, and what the first to be answered
    has learned is kept. So nobody waits for another, and whoever is cut off leaves nothing half done.
    """

    def __init__(self, stream: EventStream, counts: Callable[[], Count], run: Run) -> None:
        self._stream = stream
        self._counts = counts
        self._run = run
        self._said: Said = {}

    async def tokens(self) -> int:
        """Tokens until now; in proportion for what the stream did not keep."""
        stream, said, before = self._stream, self._said, self._said
        kept, dropped, lines = stream.kept, stream.dropped, stream.waiting[:]
        if lines:
            work = partial(heard, before, streamed(lines), self._counts())
            said = await self._run(work, stream.waiting_size + tails(before))
        if lines and self._said is before:
            self._said = said
            stream.drained(len(lines))
        return tokens(said) * (kept + dropped) // kept if dropped and kept else tokens(said)


class Reckoner:
    """Says what exchanges used; where the provider does not, `run` runs what the tokenizer must count."""

    def __init__(self, tokenizer: Tokenizer, run: Run) -> None:
        self._tokenizer = tokenizer
        self._run = run

    def follow(self, exchange: Exchange, stream: EventStream) -> None:
        """The exchange's answer is this stream: `exchange.produced` says from now on what was used so far."""
        produced = Produced(stream, partial(self._counts, exchange), self._run)

        async def so_far() -> Usage:
            return Usage(await self._prompt(exchange), await produced.tokens(), "local")

        exchange.stream, exchange.produced = stream, so_far

    async def reckon(self, exchange: Exchange) -> Usage:
        """What was used. Nobody else is told from now on: `exchange.produced` is over."""
        known = uncounted(exchange)
        so_far, exchange.produced = exchange.produced, None
        if known is not None:
            return known
        if so_far is not None:
            return await so_far()
        assert exchange.answer is not None
        assert isinstance(exchange.answer.body, bytes)
        return await self._answered(exchange, exchange.answer.body)

    async def _answered(self, exchange: Exchange, body: bytes) -> Usage:
        """What an answer says that it used; else its texts are counted."""
        read = partial(_read, body)
        usage, pieces, size = await self._run(read, len(body)) if len(body) > LOOK else read()
        if usage is not None:
            return usage
        said = await self._run(partial(heard, {}, pieces, self._counts(exchange)), size)
        return Usage(await self._prompt(exchange), tokens(said), "local")

    async def _prompt(self, exchange: Exchange) -> int:
        """The prompt's tokens: as estimated, or counted now where nobody asked before."""
        chat = exchange.chat
        if exchange.estimate is not None:
            return exchange.estimate.prompt
        if chat is None:
            return 0
        work = partial(self._tokenizer.prompt, chat.document, chat.model)
        return (await self._run(work, len(exchange.body))).tokens

    def _counts(self, exchange: Exchange) -> Count:
        return self._tokenizer.counts(exchange.chat.model if exchange.chat else "")


def uncounted(exchange: Exchange) -> Usage | None:
    """What was used, None where the texts of the answer must be read to know.

    The provider's numbers count where they are there and sane; else what was seen is counted here. An
    answer that refuses used nothing. Of a request that was sent and never answered nobody knows, so
    what was reserved stands.
    """
    answer = exchange.answer
    if exchange.chat is None or exchange.times.sent is None or exchange.outcome in FREE:
        return NOTHING
    if exchange.stream is not None and exchange.produced is not None:
        return exchange.stream.usage
    if answer is None or answer.own:
        return _as_reserved(exchange)
    if answer.status >= 400 or not isinstance(answer.body, bytes):
        return NOTHING
    return None


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
    error = document_of(body).get("error")
    return isinstance(error, Mapping) and isinstance(error.get("message"), str)


def _as_reserved(exchange: Exchange) -> Usage:
    estimate = exchange.estimate
    if estimate is None:
        return NOTHING
    return Usage(prompt=estimate.prompt, completion=estimate.completion, source="reservation")


def _read(body: bytes) -> tuple[Usage | None, list[Piece], int]:
    """What an answer says of its usage; where nothing, its texts, and how many characters they are."""
    document = document_of(body)
    usage = provided(document)
    pieces = [] if usage else list(answered(document))
    return usage, pieces, sum(len(text) for _, text in pieces)
