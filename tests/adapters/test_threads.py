"""Threads: so many at once, the smallest of those that wait first, and nothing left of who went away."""

import asyncio
import heapq
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.adapters.threads import INLINE, LOOK, PATIENCE, Threads

LONG = INLINE + 1
PROMPT = 10.0  # s; nothing here takes so long, unless it is broken


class Desk:
    """Pieces of work that wait until they are let go, and the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._gates: dict[str, threading.Event] = {}

    def work(self, name: str) -> Callable[[], str]:
        """Work of that name."""
        gate = self._gates[name] = threading.Event()

        def do() -> str:
            with self._lock:
                self.begun.append(name)
                self._at_once += 1
                self.most = max(self.most, self._at_once)
            assert gate.wait(PROMPT)
            with self._lock:
                self._at_once -= 1
            return name

        return do

    def let(self, *names: str) -> None:
        """Let the work of these names come to its end."""
        for name in names:
            self._gates[name].set()

    async def begins(self, *names: str) -> None:
        """Until exactly these have begun, in this order."""
        async with asyncio.timeout(PROMPT):
            while len(self.begun) < len(names):  # noqa: ASYNC110 - a thread tells
                await asyncio.sleep(0.001)
        assert self.begun == list(names)

    def close(self) -> None:
        """Let everything go."""
        self.let(*self._gates)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.close()


async def started(threads: Threads, work: Callable[[], str], size: int = LONG) -> "asyncio.Task[str]":
    """A task that asked for the work to be done, and waits."""
    task = asyncio.create_task(threads.run(work, size))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize(("size", "here"), [(0, True), (INLINE, True), (LONG, False)])
async def test_only_what_is_long_is_done_in_a_thread(size: int, here: bool) -> None:
    threads = Threads(1)
    assert (await threads.run(threading.get_ident, size) == threading.get_ident()) is here
    threads.close()


async def test_no_thread_is_made_before_it_is_needed() -> None:
    before = threading.active_count()
    threads = Threads(8)
    await threads.run(int, INLINE)
    assert threading.active_count() == before
    threads.close()


@pytest.mark.parametrize("size", [0, LONG])
async def test_what_the_work_raises_is_raised_and_the_thread_is_free_again(size: int) -> None:
    threads = Threads(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 / 0, size)
    threads.close()


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_than_so_many_are_at_work_at_once(most: int, desk: Desk) -> None:
    threads, names = Threads(most), "abcdefg"
    tasks = [await started(threads, desk.work(name)) for name in names]
    await desk.begins(*names[:most])
    assert threads.waiting == len(names) - most
    desk.let(*names)
    assert await asyncio.gather(*tasks) == list(names)
    assert (desk.most, threads.waiting) == (most, 0)
    threads.close()


async def test_of_those_that_wait_the_smallest_goes_first(desk: Desk) -> None:
    threads = Threads(1)
    sizes = {"first": LONG, "huge": 40_000_000, "large": 400_000, "small": LONG, "small too": LONG}
    tasks = [await started(threads, desk.work(name), size) for name, size in sizes.items()]
    desk.let(*sizes)
    await asyncio.gather(*tasks)
    assert desk.begun == ["first", "small", "small too", "large", "huge"]
    threads.close()


async def test_what_is_huge_does_not_wait_for_ever_while_others_come(desk: Desk) -> None:
    threads, later = Threads(1), [f"later {number}" for number in range(6)]
    tasks = [await started(threads, desk.work("first")), await started(threads, desk.work("unseen"))]
    tasks.append(await started(threads, desk.work("huge"), LONG + 3 * PATIENCE - 1))
    tasks += [await started(threads, desk.work(name)) for name in later]
    desk.let("first", "unseen", "huge", *later)
    await asyncio.gather(*tasks)
    assert desk.begun == ["first", "unseen", *later[:2], "huge", *later[2:]]
    threads.close()


async def test_who_leaves_while_waiting_leaves_nothing_behind(desk: Desk) -> None:
    threads = Threads(1)
    first = await started(threads, desk.work("first"))
    leaving = await started(threads, desk.work("leaving"))
    staying = await started(threads, desk.work("staying"))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert threads.waiting == 1
    desk.let("first", "staying")
    assert [await first, await staying] == ["first", "staying"]
    assert desk.begun == ["first", "staying"]
    threads.close()


class Heap:
    """What the standard library's heap is asked to do, counted."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rebuilt = 0  # turns, each as often as it was put in order again
        self.most = 0  # turns at once
        patch.setattr("service.adapters.threads.heapify", self.heapify)
        patch.setattr("service.adapters.threads.heappush", self.heappush)

    def heapify(self, turns: list[Any]) -> None:
        self.rebuilt += len(turns)
        heapq.heapify(turns)

    def heappush(self, turns: list[Any], turn: Any) -> None:
        heapq.heappush(turns, turn)
        self.most = max(self.most, len(turns))


@pytest.mark.parametrize("at_once", [True, False])
async def test_when_many_leave_each_costs_the_same(
    at_once: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap, threads, many = Heap(monkeypatch), Threads(1), 1_000
    first = await started(threads, desk.work("first"))
    leaving = [await started(threads, desk.work("leaving")) for _ in range(many)]
    staying = await started(threads, desk.work("staying"))
    for left, task in enumerate(leaving, 1):
        task.cancel()
        if not at_once:
            await asyncio.sleep(0)
            assert threads.waiting == many + 1 - left
    await asyncio.wait(leaving)
    assert threads.waiting == 1
    assert heap.rebuilt <= many
    desk.let("first", "staying")
    assert [await first, await staying] == ["first", "staying"]
    assert (desk.begun, threads.waiting) == (["first", "staying"], 0)
    threads.close()


async def test_those_who_come_and_go_do_not_pile_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    heap, threads = Heap(monkeypatch), Threads(1)
    tasks = [await started(threads, desk.work(name)) for name in ["first", *"abcd"]]
    for _ in range(500):
        leaving = await started(threads, desk.work("leaving"))
        leaving.cancel()
        await asyncio.wait([leaving])
        assert threads.waiting == 4
    assert heap.most <= 2 * 4 + 1
    desk.let("first", *"abcd")
    await asyncio.gather(*tasks)
    assert desk.begun == ["first", *"abcd"]
    threads.close()


@pytest.mark.parametrize("every", [1, 2, 3, 7])
async def test_no_thread_is_lost_whoever_leaves(every: int, desk: Desk) -> None:
    threads, names = Threads(2), [f"task {number}" for number in range(30)]
    tasks = {name: await started(threads, desk.work(name)) for name in names}
    leaving = names[2::every]
    desk.let(*names)
    for name in leaving:
        tasks[name].cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(PROMPT):
        await asyncio.wait(tasks.values())
    assert threads.waiting == 0
    meeting = threading.Barrier(2)
    await asyncio.gather(*(threads.run(lambda: meeting.wait(PROMPT), LONG) for _ in range(2)))
    last = [await started(threads, desk.work(name)) for name in "abc"]
    assert threads.waiting == 1
    desk.let(*"abc")
    assert await asyncio.gather(*last) == list("abc")
    threads.close()


async def test_who_leaves_while_at_work_holds_the_thread_until_it_is_done(desk: Desk) -> None:
    threads = Threads(1)
    leaving = await started(threads, desk.work("leaving"))
    await desk.begins("leaving")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    waiting = await started(threads, desk.work("waiting"))
    assert threads.waiting == 1
    desk.let("leaving", "waiting")
    assert await waiting == "waiting"
    assert (desk.most, threads.waiting) == (1, 0)
    threads.close()


@pytest.mark.parametrize("leaving", [["a"], ["a", "b"], ["a", "b", "c"]])
async def test_who_leaves_in_the_moment_of_its_turn_hands_it_on(leaving: list[str], desk: Desk) -> None:
    """Cancelled between the step in which a thread becomes free and the one in which that would be heard."""
    threads = Threads(1)
    tasks = {name: await started(threads, desk.work(name)) for name in ["first", "a", "b", "c", "last"]}
    await desk.begins("first")
    desk.let(*tasks)
    while threads.waiting == 4:  # noqa: ASYNC110 - it is this step that matters
        await asyncio.sleep(0)
    for name in leaving:
        tasks[name].cancel()
    async with asyncio.timeout(PROMPT):
        await asyncio.wait(tasks.values())
    assert [name for name, task in tasks.items() if task.cancelled()] == leaving
    assert desk.begun == [name for name in tasks if name not in leaving]
    assert (desk.most, threads.waiting) == (1, 0)
    threads.close()


async def test_when_closed_nothing_more_begins_and_who_waits_is_told(desk: Desk) -> None:
    threads = Threads(1)
    running = await started(threads, desk.work("running"))
    waiting = [await started(threads, desk.work(name)) for name in "ab"]
    await desk.begins("running")
    threads.close()
    desk.let("running")
    assert await running == "running"
    for task in waiting:
        with pytest.raises(RuntimeError):
            await task
    assert desk.begun == ["running"]


async def test_what_is_only_read_may_be_longer_before_a_thread_reads_it() -> None:
    threads = Threads(1)
    here = threading.get_ident()
    assert await threads.read(threading.get_ident, LOOK) == here
    assert await threads.read(threading.get_ident, LOOK + 1) != here
    threads.close()
