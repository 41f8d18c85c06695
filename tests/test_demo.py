"""The demo: it shows what it promises, spends nobody's key unasked, and leaves nothing behind."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.programs import Program, asked, is_running, run, running, simulating, until

KEY = "sk-a-key-that-lies-in-the-environment"


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    """A model that costs something, as far as the demo knows."""
    with simulating() as url:
        yield url


def requests(canary: str) -> int:
    _, text = asked(canary.removesuffix("/v1") + "/simulator/stats")
    return int(text.partition('"requests":')[2].partition(",")[0])


def lying_about(canary: str) -> dict[str, str]:
    """Settings of somebody's own, of which only --real may use the first two."""
    return {
        "UPSTREAM_URL": canary,
        "OPENAI_API_KEY": KEY,
        "REDIS_URL": "redis://nowhere.example",
        "WEIR_LOG_LEVEL": "error",
        "WEIR_WORKERS": "1",
        "WEIR_PORT": "0",
        "WEIR_OPS_PORT": "0",
    }


def test_a_user_is_counted_charged_refused_and_let_in_again_and_no_key_is_spent(canary: str) -> None:
    code, text, complaints = run("demo", "--check", environment=lying_about(canary))
    assert (code, complaints) == (0, "")
    assert text.startswith("a simulated model, which costs nothing: ")
    for word in ("refused", "others are not concerned", "and is let in again", "\nok\n"):
        assert word in text
    assert "what `weir tail` shows of it:" in text
    assert ("answers" in text.partition("Prometheus at ")[2]) == bool(shutil.which("prometheus"))
    assert requests(canary) == 0
    assert KEY not in text


@pytest.fixture(scope="module")
def real(canary: str) -> Iterator[Program]:
    """A demo that goes on, asking the canary."""
    with running("demo", "--real", **lying_about(canary)) as program:
        until(lambda: "until Ctrl-C" in program.text or program.process.poll() is not None)
        yield program


def test_only_when_it_is_asked_to_does_it_spend_the_key(real: Program, canary: str) -> None:
    assert "with OPENAI_API_KEY: this costs money" in real.text
    assert requests(canary) >= 5
    assert "Bearer $OPENAI_API_KEY" in real.text
    assert KEY not in real.text


def test_a_demo_that_is_killed_leaves_nothing_behind(real: Program) -> None:
    children = real.children()
    assert len(children) == 2 + bool(shutil.which("prometheus"))  # a store, a gateway
    os.kill(real.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, children)), within=5.0)


def test_without_a_key_there_is_no_real_model() -> None:
    code, text, complaints = run("demo", "--real", "--check")
    assert (code, text, complaints) == (1, "\nfailed: --real needs OPENAI_API_KEY\n", "")


def test_a_demo_that_is_told_to_end_ends_what_it_started() -> None:
    with running("demo", WEIR_PORT="0", WEIR_OPS_PORT="0") as program:
        until(lambda: len(program.children()) > 1 or program.process.poll() is not None)
        children = program.children()
        assert program.stop(signal.SIGTERM) == 0
        assert not any(map(is_running, children))
