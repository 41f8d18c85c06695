"""Stalls: what a body costs a worker, and how long everybody else waits for it meanwhile."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import median
from urllib.parse import urlsplit

from benchmarks import machine, request
from benchmarks.servers import Server, ServerError

CPU, STALL = 250.0, 25.0  # ms; the aims
_EVERY = 0.002  # s between an answer and the next question
_ELSEWHERE = "/elsewhere"  # which the loop of the worker itself answers, with 404
_AFTERWARDS = 0.05  # s in which a worker that has answered settles and logs
_PATIENCE = 60.0  # s for an answer
_COLUMNS = "{:<32}{:>10}{:>12}{:>10}"


@dataclass(frozen=True, slots=True)
class Stall:
    """What requests with such a body did, in ms: CPU for each (None where nobody counts), the time until the
    answer, and for how long at most somebody else had none."""

    name: str
    cpu: float | None
    took: Sequence[float]
    stalls: Sequence[float]


def measured(server: Server, name: str, make: Callable[[], bytes], *, requests: int) -> Stall:
    """So many requests with nobody else there, then as many with somebody, who costs CPU too.

    Raises ServerError where one is not answered with 200.
    """
    bodies = [make() for _ in range(requests)]
    server.rest()
    before = machine.cpu_seconds(server.pid)
    took = [_asked(server.url, body) for body in bodies]
    server.rest()
    after = machine.cpu_seconds(server.pid)
    cpu = None if before is None or after is None else (after - before) * 1000 / requests
    return Stall(name, cpu, took, [_stall(server.url, make()) for _ in range(requests)])


def _stall(url: str, body: bytes) -> float:
    with _somebody(url) as waits:
        _asked(url, body)
        time.sleep(_AFTERWARDS)
    return max(waits)


@contextmanager
def _somebody(url: str) -> Iterator[list[float]]:
    """Somebody else who asks for little again and again; the ms that each answer took."""
    waits: list[float] = []
    known, over = threading.Event(), threading.Event()

    def ask() -> None:
        with closing(_connection(url)) as connection:
            while not over.is_set():
                waits.append(_timed(connection, "GET", _ELSEWHERE, b"", expected=404))
                known.set()
                time.sleep(_EVERY)

    thread = threading.Thread(target=ask)
    thread.start()
    known.wait(_PATIENCE)
    waits.clear()  # to connect takes longer
    try:
        yield waits
    finally:
        over.set()
        thread.join()


def _asked(url: str, body: bytes) -> float:
    with closing(_connection(url)) as connection:
        return _timed(connection, "POST", request.PATH, body, expected=200)


def _connection(url: str) -> http.client.HTTPConnection:
    server = urlsplit(url)
    return http.client.HTTPConnection(server.hostname or "", server.port, timeout=_PATIENCE)


def _timed(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, *, expected: int
) -> float:
    """The ms until the answer is here. Raises ServerError where it is not the one expected."""
    began = time.perf_counter()
    try:
        connection.request(method, path, body, request.HEADERS)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{method} {path}: {error}") from error
    if answer.status != expected:
        raise ServerError(f"{method} {path}: {answer.status} {content.decode(errors='replace')[:300]}")
    return (time.perf_counter() - began) * 1000


def heading() -> str:
    """What stands above the lines."""
    return _COLUMNS.format("a request with", "CPU ms ", "stall ms ", "took ms")


def line(one: Stall) -> str:
    """The CPU, the longest of the stalls, the median of the times."""
    cpu = "- " if one.cpu is None else _marked(one.cpu, CPU)
    return _COLUMNS.format(one.name, cpu, _marked(max(one.stalls), STALL), f"{median(one.took):,.0f}")


def _marked(value: float, aim: float) -> str:
    return f"{value:,.0f}{'*' if value > aim else ' '}"
