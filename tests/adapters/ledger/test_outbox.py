"""Outbox: what it keeps, in which order it goes, and what is counted."""

import asyncio

from service.adapters.ledger import LedgerAway
from service.adapters.ledger.outbox import TOGETHER, Letter, Outbox
from tests.adapters.ledger.world import asked, eventually, used


class Away:
    """A ledger that is away for so many tries."""

    def __init__(self, tries: int) -> None:
        self.tries = tries
        self.got: list[int] = []

    async def send(self, letter: Letter) -> None:
        self.tries -= 1
        if self.tries >= 0:
            raise LedgerAway("gone", unknown=False)
        self.got.append(letter.usage.completion)


def letter(number: int) -> Letter:
    return Letter("settle", asked(1), used(number))


async def test_a_letter_that_cannot_be_delivered_does_not_keep_the_others_waiting() -> None:
    delivered: list[int] = []

    async def send(letter: Letter) -> None:
        if letter.usage.completion == 0:
            raise LedgerAway("its account is no account", unknown=False)
        delivered.append(letter.usage.completion)

    outbox = Outbox(send)
    for number in range(3):
        outbox.put(letter(number))
    running = asyncio.create_task(outbox.run())
    await eventually(lambda: outbox.waiting == 1)
    running.cancel()
    assert delivered == [1, 2]


async def test_a_fault_of_ours_in_one_letter_is_told_and_ends_no_delivery() -> None:
    told: list[object] = []
    delivered: list[int] = []

    async def send(letter: Letter) -> None:
        if letter.usage.completion == 0:
            raise ValueError("a fault")
        delivered.append(letter.usage.completion)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    outbox = Outbox(send)
    for number in range(3):
        outbox.put(letter(number))
    running = asyncio.create_task(outbox.run())
    await eventually(lambda: outbox.waiting == 0)
    running.cancel()
    assert (delivered, outbox.dropped, len(told)) == ([1, 2], 1, 1)


async def test_letters_go_out_once_the_ledger_is_back() -> None:
    ledger = Away(2)
    outbox = Outbox(ledger.send)
    for number in range(3):
        outbox.put(letter(number))
    running = asyncio.create_task(outbox.run())
    await eventually(lambda: outbox.waiting == 0)
    running.cancel()
    assert sorted(ledger.got) == [0, 1, 2]


async def test_the_letter_under_way_is_waiting_too() -> None:
    outbox = Outbox(Away(10**6).send)
    running = asyncio.create_task(outbox.run())
    outbox.put(letter(1))
    await asyncio.sleep(0)
    assert outbox.waiting == 1
    running.cancel()


async def test_above_its_bound_letters_are_dropped_and_counted() -> None:
    outbox = Outbox(Away(0).send, most=2)
    for number in range(5):
        outbox.put(letter(number))
    assert (outbox.waiting, outbox.dropped) == (2, 3)


async def test_one_letter_tries_and_when_it_has_passed_many_go_side_by_side() -> None:
    """A round trip each would keep thousands waiting for seconds, when the ledger is back."""
    under_way, most = 0, []

    async def send(letter: Letter) -> None:
        nonlocal under_way
        under_way += 1
        most.append(under_way)
        await asyncio.sleep(0)
        under_way -= 1

    outbox = Outbox(send)
    for number in range(TOGETHER * 2):
        outbox.put(letter(number))
    running = asyncio.create_task(outbox.run())
    await eventually(lambda: outbox.waiting == 0)
    running.cancel()
    assert (most[0], most[1], max(most)) == (1, 1, TOGETHER)


async def test_it_waits_for_as_long_as_the_ledger_may_not_be_asked() -> None:
    """And then asks once, where pauses of its own would have let it ask many times."""
    ledger, loop = Away(1), asyncio.get_running_loop()
    until = loop.time() + 0.5
    outbox = Outbox(ledger.send, patience=lambda: max(0.0, until - loop.time()))
    outbox.put(letter(1))
    running = asyncio.create_task(outbox.run())
    await eventually(lambda: outbox.waiting == 0)
    running.cancel()
    assert ledger.tries == -1  # the try that failed, and the one that did not


async def test_in_a_hurry_it_does_not_wait_for_its_next_try() -> None:
    ledger = Away(5)
    outbox = Outbox(ledger.send)
    running = asyncio.create_task(outbox.run())
    outbox.put(letter(1))
    await eventually(lambda: ledger.tries <= 1)  # by now it waits for more than half a second
    await outbox.empty(grace=5.0)
    running.cancel()
    assert (ledger.got, outbox.dropped) == ([1], 0)
