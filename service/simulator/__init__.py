"""Simulator: a model that costs nothing, says the same thing twice, and fails when it is asked to."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from service.domain.tokens import Tokenizer
from service.simulator.behaviour import Behaviour
from service.simulator.model import Model
from service.simulator.server import ASGIApp, Simulator


def application(
    tokenizer: Tokenizer,
    *,
    latency: float = 0.0,
    rate: float = 0.0,
    tokens: int = 40,
    count: bool = True,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ASGIApp:
    """A server that behaves like OpenAI's POST /v1/chat/completions and GET /v1/models.

    `latency` is in seconds before the head of an answer; `rate` in tokens a second of a stream, 0 for as
    fast as possible; `tokens` is the length of an answer. Without `count` it reports a fixed usage
    instead of a true one, which is cheaper. A request may ask for something else, and for faults: see
    `service.simulator.behaviour`. GET /simulator/stats tells what was done.
    """
    usual = Behaviour(latency=latency, rate=rate, tokens=tokens, fast=not count)
    return Simulator(Model(tokenizer, clock), usual, clock=clock, sleep=sleep)
