"""The command line: what each command says, and with which code it ends."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service import __version__
from tests.commands import ask_command, forget_settings
from tests.programs import Gateway, asked, definition, run, running, serving, simulating, until

HEAVY = ("pydantic", "redis", "starlette", "uvicorn", "httpx", "httptools", "tiktoken", "structlog", "yaml")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, what a command said, and what it complained of."""
    ended = ask_command(capsys, *arguments)
    return ended.code, ended.text, ended.complaints


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_settings(monkeypatch)


def test_help_needs_none_of_the_heavy_modules() -> None:
    script = (
        "import sys\nfrom service.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set(sys.modules) & set({HEAVY})))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.startswith("usage: weir ")
    assert process.stdout.endswith("\n[]\n")


def test_python_m_service_is_weir(capsys: pytest.CaptureFixture[str]) -> None:
    code, version, _ = said(capsys, "--version")
    assert (code, version) == (0, f"weir {__version__}\n")
    assert run("--version") == (0, version, "")
    script = Path(sys.executable).with_name("weir")
    if script.exists():
        process = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert process.stdout == version


def test_a_command_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, complaints = said(capsys)
    assert code == 2
    assert "COMMAND" in complaints


# -- check -----------------------------------------------------------------------------------------------


def test_the_definition_that_comes_with_weir_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "check")
    assert code == 0
    assert re.search(
        r"OpenAI_Chat_Completions_API.yaml: good \(.*, revision [0-9a-f]{12}, AVAILABLE\)\n", text
    )


def test_a_bad_definition_is_told_line_by_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = definition(tmp_path, {"name": "x", "per": ["usr"], "limit": 0, "window": "1m"}, timeout="soon")
    code, text, complaints = said(capsys, "check", str(file))
    assert (code, text) == (1, "")
    for line in complaints.splitlines():
        assert re.match(rf"{re.escape(str(file))}:\d+:\d+: x-weir\.\S+: expected ", line)
    assert len(complaints.splitlines()) == 3


def test_policies_that_can_never_apply_are_bad(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def named(name: str, when: dict[str, object]) -> dict[str, object]:
        return {"name": name, "per": [], "limit": 1, "window": "1m", "when": when}

    pros, nobodies = named("pros", {"plan": "pro"}), named("nobodies", {"plan": "none"})
    code, text, complaints = said(capsys, "check", str(definition(tmp_path, pros, nobodies)))
    assert (code, text) == (1, "")
    assert [line.split(": ")[1].rpartition(".policies")[2] for line in complaints.splitlines()] == [
        "[0].when.plan",
        "[1].when.plan",
    ]
    models, users = named("models", {"model": []}), named("users", {"user": "u" * 257})
    code, text, complaints = said(capsys, "check", str(definition(tmp_path, models, users)))
    assert (code, text) == (1, "")
    assert [line.split(": ")[1].rpartition(".policies")[2] for line in complaints.splitlines()] == [
        "[0].when.model",
        "[1].when.user",
    ]


def test_a_definition_whose_schema_cannot_be_compiled_is_bad(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = definition(tmp_path)
    text = file.read_text()
    start = text.index("    ChatRequest:")
    file.write_text(text[:start] + text[start:].replace("type: string", "type: strinx", 1))
    code, _, complaints = said(capsys, "check", str(file))
    assert code == 1
    assert complaints == f"{file}: not a JSON Schema of draft 7: Unknown type\n"


def test_a_definition_that_is_not_there_is_bad(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, complaints = said(capsys, "check", str(tmp_path / "no.yaml"))
    assert code == 1
    assert "expected a readable file" in complaints


def test_check_does_not_care_for_the_ledgers_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://redis")
    assert said(capsys, "check")[0] == 0


def test_settings_that_are_wrong_end_any_command_that_reads_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_PROT", "8080")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    for command in ("serve", "check", "health", "demo"):
        code, text, complaints = said(capsys, command)
        assert (code, text) == (2, "")
        assert [line.split(":")[0] for line in complaints.splitlines()] == ["OPENAI_API_KEY", "WEIR_PROT"]
        assert "sk-secret" not in complaints


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_told(capsys: pytest.CaptureFixture[str], port: str) -> None:
    code, _, complaints = said(capsys, "simulate", f"--port={port}")
    assert code == 2
    assert f"expected a whole number from 0 to 65535, not '{port}'" in complaints


# -- keys ------------------------------------------------------------------------------------------------


def test_the_id_of_a_new_key_must_be_one_that_can_be_logged(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, complaints = said(capsys, "keys", "new", "--id", "two words")
    assert (code, text) == (2, "")
    assert complaints.startswith("--id: ")


def new_key(capsys: pytest.CaptureFixture[str], id: str) -> tuple[str, str]:
    """A new key, and its line for the keys file."""
    code, text, _ = said(capsys, "keys", "new", "--id", id)
    assert code == 0
    first, second = text.splitlines()
    return first.split()[-1], second.partition(":")[2].strip()


def status(gateway: Gateway, key: str) -> int:
    place = urlsplit(gateway.url)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port)) as connection:
        body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]})
        fields = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, fields)
        return connection.getresponse().status


def test_a_new_key_works_once_its_line_is_in_the_file_and_no_longer_than_that(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, first_line = new_key(capsys, "ann")
    second, second_line = new_key(capsys, "bob")
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys:\n{first_line}\n")
    file = definition(tmp_path, authentication="virtual-keys")
    arguments = ("--definition", str(file), "--keys-file", str(keys))
    secret = "sk-of-the-gateways-own"
    with (
        simulating() as model,
        serving(*arguments, UPSTREAM_URL=model, OPENAI_API_KEY=secret) as gateway,
    ):
        assert (status(gateway, first), status(gateway, second)) == (200, 401)
        keys.write_text(f"keys:\n{second_line}\n")
        assert gateway.waiting_for("keys.loaded")["keys"] == 1
        assert (status(gateway, first), status(gateway, second)) == (401, 200)
        gateway.stop()
    assert gateway.records("exchange.response", credential="ann", status=200)
    for text in (first, second, secret):
        assert text not in gateway.text + gateway.complaints


# -- health ----------------------------------------------------------------------------------------------


def health(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, port: int) -> tuple[int, str]:
    monkeypatch.setenv("WEIR_OPS_PORT", str(port))
    code, text, complaints = said(capsys, "health")
    return code, text + complaints


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says this to whoever comes first; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_gateway_that_is_not_ready_is_not_healthy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}") as port:
        assert health(capsys, monkeypatch, port) == (1, "{}\n")


def test_a_gateway_that_is_not_there_or_is_something_else_is_not_healthy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, text = health(capsys, monkeypatch, port)
    assert code == 1
    assert text.startswith(f"127.0.0.1:{port}: ")
    with answering(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        assert health(capsys, monkeypatch, port)[0] == 1


# -- simulate --------------------------------------------------------------------------------------------


def test_a_simulated_model_says_where_it_is_and_that_it_costs_nothing() -> None:
    with running("simulate", "--port", "0", "--tokens", "7") as program:
        line = program.line()
        assert line.startswith("a simulated model, which costs nothing: http://127.0.0.1:")
        url = line.split()[-1]
        until(lambda: asked(url.removesuffix("/v1") + "/simulator/stats")[0] == 200)
