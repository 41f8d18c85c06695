"""Watch: how the demo is seen from outside: a Prometheus where one is on PATH, and `weir tail`."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from service.adapters.ledger.embedded import end_with_parent
from service.demo.house import http
from service.demo.program import PATIENCE, Failed, child


@contextmanager
def prometheus(operations: str, folder: Path) -> Iterator[str | None]:
    """A Prometheus that reads the metrics every second: its URL, None where there is none to start."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    place = f"127.0.0.1:{_free_port()}"
    job = {"job_name": "weir", "static_configs": [{"targets": [operations.removeprefix("http://")]}]}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=error"]
    process = subprocess.Popen(
        [program, *flags, f"--web.listen-address={place}"],
        preexec_fn=end_with_parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{place}"
    finally:
        process.terminate()
        process.wait()


def counted(prometheus: str) -> float:
    """The answers that a Prometheus knows of, as soon as it knows of any. Raises Failed."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(Failed, ValueError):  # it is starting
            answer = http("GET", f"{prometheus}/api/v1/query", params={"query": "sum(weir_requests_total)"})
            if found := answer.json().get("data", {}).get("result"):
                return float(found[0]["value"][1])
        time.sleep(0.2)
    raise Failed(f"{prometheus} never heard of the gateway")


def seen(store: str, count: int) -> list[str]:
    """The lines that `weir tail` shows of the first exchanges. Raises Failed."""
    with child("tail", "--since", "1h", "--count", str(count), REDIS_URL=store) as process:
        try:
            text, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed("weir tail has not seen the exchanges") from None
    return text.splitlines()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
