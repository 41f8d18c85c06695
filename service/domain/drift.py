"""Drift: how far an estimate was from what the provider says was used."""

from collections.abc import Iterator

from service.domain.exchange import Exchange


def drift(exchange: Exchange) -> Iterator[tuple[str, float]]:
    """(used - estimate) / used of the prompt and of the completion, where any were used.

    Above 0 more was used than estimated, 1 at most; below 0 less. A completion's estimate is what experience
    expected, or else what the request allows. Nothing is said of an exchange that was not estimated, did not
    come to its own end, or whose provider did not say what it used.
    """
    estimate, usage = exchange.estimate, exchange.usage
    if estimate is None or usage is None or usage.source != "provider" or not _ended_well(exchange):
        return
    expected = estimate.completion if estimate.learned is None else estimate.learned
    parts = (("prompt", usage.prompt, estimate.prompt), ("completion", usage.completion, expected))
    for part, used, estimated in parts:
        if used:
            yield part, (used - estimated) / used


def _ended_well(exchange: Exchange) -> bool:
    failed = exchange.stream is not None and exchange.stream.failed
    return exchange.outcome == "complete" and not failed
