"""Logs: one JSON object a line, rendered and written off the event loop, with every secret masked.

Who logs only puts a record into a bounded queue; what does not fit is dropped and counted. A thread
renders the records and writes them, whole lines together up to what a pipe takes in one piece, so
that the lines of several workers do not mix (longer lines, which only bodies make, may).
"""

import logging
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple, TextIO

from structlog.processors import ExceptionRenderer, JSONRenderer
from structlog.tracebacks import ExceptionDictTransformer

from service.domain.masking import masked, plain

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_GATHER = 0.02  # s, that the writer waits for company before it writes
_BATCH = 500  # records rendered at a time
_MOST_TEXT = 64 * 1024 * 1024  # characters or bytes of text that may wait, bodies above all


class Record(NamedTuple):
    """What waits to be written. `time` is in seconds since 1970; `size` that of its texts."""

    time: float
    level: str
    event: str
    fields: dict[str, object]
    size: int = 0


class Logs:
    """The log of one process. Records wait until `start`, which each worker calls for itself.

    `bound` is the number of records that may wait.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        level: str = "info",
        bound: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._level = LEVELS[level]
        self._bound = bound
        self._clock = clock
        self._waiting: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        # Guards the three that follow. Reentrant, as the garbage collector may log in the middle of logging.
        self._numbers = threading.RLock()
        self._text = 0
        self._dropped = 0
        self._told = 0  # the losses that the log itself has told of
        self._closing = threading.Event()
        self._writer: threading.Thread | None = None
        self._line = Line()

    @property
    def dropped(self) -> int:
        """Records lost so far: the queue was full, or the stream refused them."""
        return self._dropped

    def start(self) -> None:
        """Begin to write."""
        self._closing.clear()
        self._writer = threading.Thread(target=self._run, name="logs", daemon=True)
        self._writer.start()

    def close(self, *, patience: float = 5.0) -> None:
        """Write what waits. Where nobody reads for `patience` seconds, what is left is lost, and counted."""
        if not self._writer:
            self.start()
        self._closing.set()
        self._waiting.put(None)
        if self._writer:
            self._writer.join(patience)
        while left := self._batch():
            self._lose(len(left))

    def info(self, event: str, /, **fields: object) -> None:
        """Something happened."""
        self._put("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Something happened that should not happen often."""
        self._put("warning", event, fields)

    def error(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """Something went wrong; the error's traceback is shown without the values of its variables."""
        self._put("error", event, {**fields, "exc_info": error} if error else fields)

    def adopt(self) -> None:
        """Take over the standard library's logging: uvicorn's, asyncio's, everybody's.

        Except uvicorn's access log, which would say in other words what an exchange says itself.
        """
        for name in ("uvicorn", "uvicorn.error", "asyncio"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
        logging.getLogger("uvicorn.access").propagate = False
        logging.getLogger("uvicorn").setLevel(self._level)
        logging.basicConfig(handlers=[Adopted(self)], level=logging.WARNING, force=True)

    def _put(self, level: str, event: str, fields: dict[str, object]) -> None:
        if LEVELS[level] < self._level:
            return
        size = sum(len(value) for value in fields.values() if isinstance(value, str | bytes))
        with self._numbers:
            fits = self._waiting.qsize() < self._bound and self._text + size <= _MOST_TEXT
            if fits:
                self._text += size
                self._waiting.put(Record(self._clock(), level, event, fields, size))
        if not fits:
            self._lose(1)

    def _lose(self, count: int) -> None:
        with self._numbers:
            self._dropped += count

    def _run(self) -> None:
        while not self._closing.is_set():
            first = self._waiting.get()
            self._closing.wait(_GATHER)
            self._write([*([first] if first else []), *self._batch()])
        while batch := self._batch():
            self._write(batch)

    def _batch(self) -> list[Record]:
        batch: list[Record] = []
        try:
            while len(batch) < _BATCH:
                if record := self._waiting.get_nowait():
                    batch.append(record)
        except queue.Empty:
            pass
        return batch

    def _write(self, batch: list[Record]) -> None:
        with self._numbers:
            self._text -= sum(record.size for record in batch)
            lost, self._told = self._dropped - self._told, self._dropped
        if lost:
            batch.append(Record(self._clock(), "warning", "log.dropped", {"count": lost}))
        try:
            for piece in _pieces(map(self._line, batch)):
                self._stream.write(piece)
                self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more, or the stream is closed
            self._lose(len(batch))


class Line:
    """How a record becomes a line."""

    def __init__(self) -> None:
        self._trace = ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=20))
        self._json = JSONRenderer()

    def __call__(self, record: Record) -> str:
        """The record's line. Never raises: what cannot be said is replaced by the reason."""
        moment = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
        head = {"timestamp": moment.replace("+00:00", "Z"), "level": record.level, "event": record.event}
        if (line := plain({**head, **record.fields, **head})) is not None:
            return line
        try:
            said = masked(self._trace(None, record.level, {**head, **record.fields, **head}))
            return str(self._json(None, record.level, said)) + "\n"
        except Exception as error:  # a value's own repr may raise anything
            said = {**head, "unprintable": type(error).__name__}
            return str(self._json(None, record.level, masked(said))) + "\n"


class Adopted(logging.Handler):
    """The way from the standard library's logging into ours."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the arguments do not fit the text
            message = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR:
            self._logs.error(message, error=error, logger=record.name)
        elif record.levelno >= logging.WARNING:
            self._logs.warning(message, logger=record.name)
        else:
            self._logs.info(message, logger=record.name)


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Whole lines, together as far as a pipe takes them in one piece."""
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece
