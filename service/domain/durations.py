"""Durations: where the time of an exchange went."""

from dataclasses import dataclass

from service.domain.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Durations:
    """Where the time of an exchange went, in seconds; None for what never came.

    `total` runs from received to ended, `first_byte` from received to the first byte of content out,
    `upstream` from sent to head. `own` is what Weir adds: (sent − received), and where the answer is
    relayed whole (first_byte − head) too. It contains reading the client's body. In a stream the wait
    between the head and the first event is the model's, so nothing after `sent` counts there. Where
    nothing was sent, all of it is ours, until the first byte.
    """

    total: float
    own: float
    upstream: float | None
    first_byte: float | None


def durations(exchange: Exchange) -> Durations:
    """The durations of an exchange that is over, or nearly: where it has no end yet, it is now."""
    times = exchange.times
    total = (exchange.clock() if times.ended is None else times.ended) - times.received
    first_byte = None if times.first_byte is None else times.first_byte - times.received
    if times.sent is None:
        return Durations(total, total if first_byte is None else first_byte, None, first_byte)
    own = times.sent - times.received
    whole = exchange.answer is not None and not exchange.answer.is_stream()
    if whole and times.head is not None and times.first_byte is not None:
        own += times.first_byte - times.head
    return Durations(total, own, None if times.head is None else times.head - times.sent, first_byte)
