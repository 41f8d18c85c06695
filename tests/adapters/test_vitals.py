"""Vitals: a worker's own lag, work and memory are told as they are."""

import asyncio
import os
from pathlib import Path

import pytest

from service.adapters.vitals import EVERY, MEMORY, Vitals, resident


class Listener:
    """Hears of every look."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, float, int | None]] = []
        self.some = asyncio.Event()

    def __call__(self, *, lag: float, cpu: float, memory: int | None) -> None:
        self.heard.append((lag, cpu, memory))
        self.some.set()


def test_a_look_that_comes_late_tells_how_late() -> None:
    listener = Listener()
    vitals = Vitals(listener, clock=lambda: 10.75, cpu=lambda: 0.0)
    vitals.look(due=10.5)
    vitals.look(due=11.0)  # a timer may be early by its resolution
    assert [lag for lag, _, _ in listener.heard] == [0.25, 0.0]


def test_work_is_told_once() -> None:
    listener, worked = Listener(), iter((1.5, 1.5, 4.0))
    vitals = Vitals(listener, clock=lambda: 0.0, cpu=lambda: next(worked))
    for _ in range(3):
        vitals.look(due=0.0)
    assert [cpu for _, cpu, _ in listener.heard] == [1.5, 0.0, 2.5]


def test_memory_is_what_linux_counts_in_pages(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("9000 1234 400 5 0 600 0\n")
    assert resident(statm) == 1234 * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_not_told_where_it_is_not_known(tmp_path: Path) -> None:
    assert resident(tmp_path / "nothing") is None


@pytest.mark.skipif(not MEMORY.exists(), reason="it is not Linux")
async def test_it_goes_on_looking_at_the_process_it_runs_in() -> None:
    listener = Listener()
    running = asyncio.create_task(Vitals(listener).run())
    for _ in range(2):
        listener.some.clear()
        await asyncio.wait_for(listener.some.wait(), 10 * EVERY)
    running.cancel()
    assert all(memory is not None and memory > 2**20 for _, _, memory in listener.heard)
