"""Logs: what a line says, what it never says, and that writing it holds nobody up."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service.adapters.logs import Logs
from service.domain.masking import masked

OPENAI_KEY = "sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
VIRTUAL_KEY = "weir_" + "aB3-_" * 8 + "xyz"
SECRETS = (OPENAI_KEY, VIRTUAL_KEY, "hunter2hunter2", "dXNlcjpwYXNzd29yZA==")


class Stalled(io.StringIO):
    """A stream that nobody reads until `reading` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled, self.reading = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.stalled.set()
        self.reading.wait()
        return super().write(text)


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError(VIRTUAL_KEY)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logs(stream: io.StringIO) -> Logs:
    return Logs(stream, clock=lambda: 1_700_000_000.25)


@pytest.fixture
def _standard_logging_is_put_back() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "asyncio")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def written(logs: Logs, stream: io.StringIO) -> list[dict[str, Any]]:
    logs.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json(logs: Logs, stream: io.StringIO) -> None:
    logs.info("exchange.request", model="gpt-4o", text="two\nlines, ünïcode, \ud800", nothing=None)
    logs.close()
    assert stream.getvalue() == (
        '{"timestamp": "2023-11-14T22:13:20.250Z", "level": "info", "event": "exchange.request", '
        '"model": "gpt-4o", "text": "two\\nlines, \\u00fcn\\u00efcode, \\ud800", "nothing": null}\n'
    )


def test_a_field_cannot_pass_for_the_time_or_the_level(logs: Logs, stream: io.StringIO) -> None:
    logs.info("real", level="error", timestamp="never", event="forged")
    (record,) = written(logs, stream)
    assert (record["level"], record["event"]) == ("info", "real")
    assert record["timestamp"].startswith("2023-")


def test_levels_below_the_wanted_one_are_not_written(stream: io.StringIO) -> None:
    logs = Logs(stream, level="warning")
    logs.info("one")
    logs.warning("two")
    logs.error("three")
    assert [record["event"] for record in written(logs, stream)] == ["two", "three"]


def test_records_keep_their_order_and_closing_writes_them_all(logs: Logs, stream: io.StringIO) -> None:
    logs.start()
    for number in range(3000):
        logs.info("n", number=number)
    assert [record["number"] for record in written(logs, stream)] == list(range(3000))
    assert logs.dropped == 0


def test_a_closed_log_can_be_started_again(logs: Logs, stream: io.StringIO) -> None:
    logs.info("one")
    logs.close()
    logs.start()
    logs.info("two")
    assert [record["event"] for record in written(logs, stream)] == ["one", "two"]


def test_a_stalled_stream_holds_nobody_up_and_the_loss_is_counted() -> None:
    stream = Stalled()
    logs = Logs(stream, bound=100)
    logs.start()
    logs.info("first")
    assert stream.stalled.wait(10)
    for number in range(10_000):
        logs.info("n", number=number)
    assert logs.dropped == 9_900
    stream.reading.set()
    records = written(logs, stream)
    assert [record["event"] for record in records] == ["first", *["n"] * 100, "log.dropped"]
    assert records[-1]["count"] == 9_900


def test_logging_while_logging_is_possible(stream: io.StringIO) -> None:
    """As when the garbage collector ends a task, and asyncio has something to say about it."""

    def clock() -> float:
        if len(moments) < 2:
            moments.append(0.0)
            logs.info("inner")
        return 1.0

    moments: list[float] = []
    logs = Logs(stream, clock=clock)
    logs.info("outer")
    assert [record["event"] for record in written(logs, stream)] == ["inner", "inner", "outer"]


def test_what_a_stream_never_takes_is_lost_when_the_log_closes() -> None:
    stream = Stalled()
    logs = Logs(stream)
    logs.start()
    logs.info("first")
    assert stream.stalled.wait(10)
    logs.info("second")
    logs.close(patience=0)
    assert logs.dropped == 1
    stream.reading.set()


def test_waiting_bodies_are_bounded_by_their_size_too(logs: Logs, stream: io.StringIO) -> None:
    body = b"x" * (20 * 1024 * 1024)
    for _ in range(5):
        logs.info("exchange.request", body=body)
    assert logs.dropped == 2
    assert [record["event"] for record in written(logs, stream)] == [*["exchange.request"] * 3, "log.dropped"]
    logs.start()
    logs.info("room again", body=body)
    logs.close()
    assert logs.dropped == 2


def test_a_stream_that_is_closed_costs_the_records_and_nothing_else(logs: Logs, stream: io.StringIO) -> None:
    stream.close()
    logs.info("one")
    logs.info("two")
    logs.close()
    assert logs.dropped == 2


def test_writes_are_whole_lines_that_a_pipe_takes_in_one_piece() -> None:
    class Pieces(io.StringIO):
        pieces: list[str] = []  # noqa: RUF012

        def write(self, text: str) -> int:
            self.pieces.append(text)
            return len(text)

    stream = Pieces()
    logs = Logs(stream)
    for _ in range(100):
        logs.info("n", text="x" * 200)
    logs.close()
    assert 1 < len(stream.pieces) < 20
    assert all(piece.endswith("\n") and len(piece) <= 4096 for piece in stream.pieces)


def test_no_secret_is_in_any_line(logs: Logs, stream: io.StringIO) -> None:
    """Wherever a key is put: a field, its name, a text, bytes, JSON within JSON, an object, an error."""
    logs.info("request", authorization=SECRETS[2], api_key=SECRETS[2], **{"x-api-key": SECRETS[2]})
    logs.info("header", headers=[(b"authorization", f"Bearer {SECRETS[2]}".encode())])
    logs.info("basic", header=f"Basic {SECRETS[3]}")
    logs.info("body", body=json.dumps({"content": f"my key is {OPENAI_KEY}, yours {VIRTUAL_KEY}."}))
    logs.info("arguments", body=json.dumps({"a": json.dumps({"api_key": SECRETS[2], "n": 1})}))
    logs.info("bytes", body=f'{{"password": "{SECRETS[2]}"}}'.encode())
    logs.info("deep", a={"b": [{"c": ({"d": VIRTUAL_KEY},)}]}, e={OPENAI_KEY: 1}, f={VIRTUAL_KEY})
    logs.info("object", thing=Exception(OPENAI_KEY))
    logs.info("address", url=f"rediss://user:{SECRETS[2]}@redis:6379/0")
    logs.info(
        "after an escape", body="\\n" + OPENAI_KEY, more="\\u000A" + VIRTUAL_KEY, text="\n" + VIRTUAL_KEY
    )
    logs.info(f"event {OPENAI_KEY}")
    logs.error("failed", error=ValueError(f"bad key {VIRTUAL_KEY}"))
    logs.info("unprintable", thing=Unprintable())
    assert len(written(logs, stream)) == 13
    for secret in SECRETS:
        assert secret[6:] not in stream.getvalue()


@pytest.mark.parametrize("kept", range(6, 48))
def test_a_key_that_a_truncated_body_cuts_in_two_is_masked(kept: int) -> None:
    assert masked("so " + VIRTUAL_KEY[:kept]) in {"so weir_****", "so " + VIRTUAL_KEY[:6]}
    assert masked("so " + OPENAI_KEY[:kept]) == "so sk-****"


@pytest.mark.parametrize(
    "text",
    [
        "weir_requests_total and weir_reservations_lost_total",
        "read task-management-systems, at risk-averse prices",
        "basic research by the bearer, https://example.org/a@b",
        "key-0123456789abcdef",
        "prompt_tokens: 12, max_tokens: 3",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert masked(text) == text
    assert masked({"tokens": 3, "completion_tokens": 4}) == {"tokens": 3, "completion_tokens": 4}


def test_numbers_that_json_does_not_know_are_written_as_text(logs: Logs, stream: io.StringIO) -> None:
    logs.info("odd", value=float("nan"), other=float("-inf"), good=0.5)
    assert written(logs, stream)[0]["value"] == "nan"


def test_what_cannot_be_written_is_replaced_by_the_reason(logs: Logs, stream: io.StringIO) -> None:
    logs.info("odd", thing=Unprintable())
    logs.info("next")
    odd, following = written(logs, stream)
    assert (odd["event"], odd["unprintable"]) == ("odd", "ZeroDivisionError")
    assert following["event"] == "next"


def test_a_traceback_shows_where_but_no_values(logs: Logs, stream: io.StringIO) -> None:
    def fail() -> None:
        prompt = "the prompt of a user"
        raise LookupError(len(prompt))

    try:
        fail()
    except LookupError as error:
        logs.error("failed", error=error, id="req_1")
    (record,) = written(logs, stream)
    assert record["exception"][0]["exc_type"] == "LookupError"
    assert [frame["name"] for frame in record["exception"][0]["frames"]][-1] == "fail"
    assert "of a user" not in stream.getvalue()


@pytest.mark.usefixtures("_standard_logging_is_put_back")
def test_the_standard_librarys_logging_becomes_json_too(logs: Logs, stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").addHandler(logging.StreamHandler(stream))
    logs.adopt()
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("httpx").info("HTTP Request: POST")
    logging.getLogger("anything").warning("odd %s %s", "arguments")
    loop = asyncio.new_event_loop()
    loop.call_exception_handler({"message": "it broke", "exception": ValueError(OPENAI_KEY)})
    loop.close()
    started, odd, broke = written(logs, stream)
    assert started["event"] == "Started server process [7]"
    assert (started["level"], started["logger"]) == ("info", "uvicorn.error")
    assert (odd["level"], odd["event"]) == ("warning", "odd %s %s")
    assert (broke["level"], broke["exception"][0]["exc_value"]) == ("error", "sk-****")
