"""Harness: rounds of load on each target in turn, so that what disturbs one disturbs all."""

import http.client
import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from benchmarks import machine, request
from benchmarks.load import Heard, Load
from benchmarks.servers import ServerError
from benchmarks.table import Round
from benchmarks.targets import Target

WARM_UP = 1.0  # s of load before each measurement


def run(targets: Sequence[Target], load: Load, *, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """The rounds of each target, after each has answered once as it should. Raises ServerError, LoadError."""
    for target in targets:
        probe(target)
    results: dict[str, list[Round]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            results[target.name].append(measured(target, load, seconds=seconds))
    return results


def measured(target: Target, load: Load, *, seconds: float) -> Round:
    """One round. The target is at rest before and after it."""
    server = target.server
    load(server.url, WARM_UP)
    server.rest()
    before = machine.cpu_seconds(server.pid)
    heard = load(server.url, seconds)
    after = machine.cpu_seconds(server.pid)
    server.rest()
    return Round(heard, _per_thousand(heard, before, after), machine.peak_megabytes(server.pid))


def probe(target: Target) -> None:
    """Ask once. Raises ServerError where the answer is not the completion it should be."""
    address = urlsplit(target.server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request("POST", request.PATH, request.body(0), request.HEADERS)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{target.name}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200 or not json.loads(content).get("usage"):
        raise ServerError(f"{target.name}: {answer.status} {content.decode(errors='replace')[:500]}")


def _per_thousand(heard: Heard, before: float | None, after: float | None) -> float | None:
    """CPU seconds per 1000 requests."""
    if before is None or after is None or not heard.answers:
        return None
    return (after - before) * 1000 / heard.answers
