"""Command: `weir tail`, from its arguments to its exit code."""

import argparse
import asyncio
import json
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, TextIO

from service import app
from service.adapters.ledger import journal, scripts
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.wire import Wire, open_wire
from service.domain.globs import Globs
from service.settings import Settings, inherited
from service.tail.line import line
from service.tail.wanted import Wanted

Complain = Callable[[Sequence[str]], None]

AGAIN = 0.5  # s between two tries to reach a ledger that is away


def run(settings: Settings, options: argparse.Namespace, complain: Complain) -> int:
    """Show exchanges until told to end; 0: done, or nobody reads; 1: the ledger is away; 2: wrongly asked."""
    if settings.redis_url is None:
        complain(["REDIS_URL: expected, as the gateways have it"])
        return 2
    coloured = sys.stdout.isatty() and not inherited().get("NO_COLOR")
    tail = Tail(_wanted(settings, options), options.count, sys.stdout, complain, coloured=coloured)
    tail.raw = options.json
    try:
        asyncio.run(_follow(settings.redis_url, tail, options.since))
    except LedgerAway as away:
        complain([f"the ledger is away: {away}"])
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the exit
    return 0


def _wanted(settings: Settings, options: argparse.Namespace) -> Wanted:
    digest = app.digester(settings.digest_key or "")
    users = frozenset({options.user, digest(options.user)}) if options.user else frozenset()
    return Wanted(users, options.status or "", Globs((options.model,)) if options.model else None)


async def _follow(url: str, tail: "Tail", since: int) -> None:
    wire = open_wire(url, scripts.load(), connections=1, timeout=2 * journal.BLOCK / 1000)
    try:
        await tail.follow(wire, since)
    finally:
        await wire.close()


class Tail:
    """Shows exchanges that are wanted, at most `count` if there is a count, as lines of `out`.

    `raw` shows the records as they are.
    """

    raw = False

    def __init__(
        self, wanted: Wanted, count: int | None, out: TextIO, complain: Complain, *, coloured: bool = False
    ) -> None:
        self._wanted = wanted
        self._left = count
        self._out = out
        self._complain = complain
        self._coloured = coloured
        self._after = ""  # the last entry that was seen
        self._away = False

    async def follow(self, wire: Wire, since: int) -> None:
        """From so many ms ago until all are shown. Raises LedgerAway where there is none to begin with, and
        BrokenPipeError where nobody reads any more."""
        self._after = str(await journal.now(wire) - since - 1)
        while True:
            try:
                return await self._read(wire)
            except LedgerAway as away:
                if not self._away:
                    self._complain([f"the ledger is away: {away}; waiting until it is back"])
                self._away = True
            await asyncio.sleep(AGAIN)

    async def _read(self, wire: Wire) -> None:
        async with aclosing(journal.follow(wire, self._after, anew=self._away)) as pages:
            async for entries in pages:
                if self._away:
                    self._complain(["the ledger is back"])
                self._away = False
                for self._after, text in entries:
                    self._show(text)
                    if self._left == 0:
                        return
                self._out.flush()
                _refuse_closed(self._out)

    def _show(self, text: str) -> None:
        record = _record(text)
        if record is not None and self._wanted.has(record):
            self._out.write((text if self.raw else line(record, coloured=self._coloured)) + "\n")
            self._left = None if self._left is None else self._left - 1


def _record(text: str) -> dict[str, Any] | None:
    """The record in an entry; None where somebody else wrote it."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _refuse_closed(out: TextIO) -> None:
    """Raises BrokenPipeError where the reader of a pipe has gone, though there is nothing to write."""
    poll = select.poll()
    poll.register(out, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise BrokenPipeError
