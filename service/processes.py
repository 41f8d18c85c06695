"""Processes: the workers that serve the API on one port, and the one that serves operations on another."""

import asyncio
import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.context import ForkProcess
from types import FrameType

import uvicorn

from service.adapters.keyring import KeysError
from service.adapters.ledger.embedded import EmbeddedStore, EmbeddedStoreError, end_with_parent
from service.adapters.logs import Line, Logs, Record
from service.adapters.vocabularies import VocabularyError
from service.app import Worker, build, default_definition, digester, load_tokenizer, read_definition
from service.domain.api import Api, DefinitionError
from service.domain.tokens import Tokenizer
from service.operations import DRAINING, READY, STARTING, operations
from service.protocol import Protocol
from service.settings import Settings
from service.simulator import application

_ENDINGS = (signal.SIGTERM, signal.SIGINT)
RESTART = 1.0  # s between two starts of the same worker
_FORK = multiprocessing.get_context("fork")


def serve(settings: Settings, metrics: str) -> int:
    """Serve until SIGTERM or SIGINT, counting into the directory `metrics`.

    Raises DefinitionError, KeysError, VocabularyError, EmbeddedStoreError or OSError.

    Everything that can be read is read, and built once, before the workers are forked: a fault is told at
    once, and the vocabularies are in memory once.
    """
    api = read_definition(settings.definition or default_definition(), settings)
    tokenizer = load_tokenizer(api.counting)
    with ExitStack() as stack:
        url = settings.redis_url or stack.enter_context(EmbeddedStore()).url
        public = stack.enter_context(_listening(settings.host, settings.port))
        private = stack.enter_context(_listening(settings.ops_host, settings.ops_port))
        build(settings, api, tokenizer, redis_url=url, logs=Logs(sys.stdout), worker=Worker())
        supervisor = Supervisor(settings, api, tokenizer, url=url, metrics=metrics)
        return supervisor.run(public, private)


def run_or_say_why(run: Callable[[], int], complain: Callable[[Sequence[str]], None]) -> int:
    """Serve or simulate; where that is not possible, complain and return 2."""
    try:
        return run()
    except (DefinitionError, KeysError) as wrong:
        complain(wrong.errors)
    except (VocabularyError, EmbeddedStoreError, OSError) as error:
        complain([str(error)])
    return 2


def simulate(*, host: str, port: int, latency: float, rate: float, tokens: int, count: bool) -> int:
    """Serve a simulated model until SIGTERM or SIGINT."""
    app = application(load_tokenizer(), latency=latency, rate=rate, tokens=tokens, count=count)
    with _listening(host, port) as listener:
        print(f"a simulated model, which costs nothing: {_address(listener)}/v1", flush=True)
        uvicorn.Server(_config(app, grace=1.0)).run(sockets=[listener])
    return 0


class Supervisor:
    """Starts the processes, starts again what dies, and passes on the signal to end."""

    def __init__(self, settings: Settings, api: Api, tokenizer: Tokenizer, *, url: str, metrics: str) -> None:
        self._settings = settings
        self._api = api
        self._tokenizer = tokenizer
        self._url = url
        self._metrics = metrics
        self._states = _FORK.RawArray("i", settings.workers)
        self._workers: dict[ForkProcess, int] = {}
        self._ending = False

    def run(self, public: socket.socket, private: socket.socket) -> int:
        """Until a signal ends it; returns the exit code. The process for operations is the last to go."""
        gc.collect()
        gc.freeze()  # what the workers share is never looked through again
        say("info", "serving", api=_address(public), operations=_address(private))
        for number in _ENDINGS:
            signal.signal(number, partial(self._end, public))
        operator = _start(self._operate, private, public)
        for index in range(self._settings.workers):
            self._begin(index, public)
        while self._workers:
            ended = multiprocessing.connection.wait([one.sentinel for one in self._workers], timeout=1.0)
            for worker in [one for one in self._workers if one.sentinel in ended]:
                self._bury(worker, public)
            if not operator.is_alive() and not self._ending:
                say("error", "operations.died", code=operator.exitcode)
                operator = _start(self._operate, private, public)
        operator.terminate()
        operator.join()
        return 0

    def _begin(self, index: int, public: socket.socket) -> None:
        """Start a worker, unless this is the end; a signal that comes meanwhile finds it known."""
        with _signals_wait():
            if not self._ending:
                self._workers[_start(self._work, index, public)] = index

    def _bury(self, worker: ForkProcess, public: socket.socket) -> None:
        """A worker has ended: begin another one, unless this is the end."""
        worker.join()
        index = self._workers.pop(worker)
        if self._ending:
            return
        say("error", "worker.died", pid=worker.pid, code=worker.exitcode)
        if self._states[index] == STARTING:  # it never lived: give what is wrong time to pass
            time.sleep(RESTART)
        self._begin(index, public)

    def _end(self, public: socket.socket, number: int, frame: FrameType | None) -> None:
        """Pass the signal on, and let go of the port: nobody may queue where nobody will answer."""
        self._ending = True
        public.close()
        for worker in self._workers:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, number)

    def _work(self, index: int, public: socket.socket) -> None:
        """A worker's life."""
        settings, states = self._settings, self._states
        states[index] = STARTING
        worker = Worker(number=index)
        logs = Logs(sys.stdout, level=settings.log_level)
        app = build(settings, self._api, self._tokenizer, redis_url=self._url, logs=logs, worker=worker)
        server = uvicorn.Server(_config(app, grace=settings.grace))
        logging.getLogger("uvicorn.error").addFilter(_is_news)

        def leave(number: int) -> None:
            worker.draining = True
            states[index] = DRAINING
            if number == signal.SIGINT:
                for task in server.server_state.tasks:
                    task.cancel()
            wait = settings.drain if number == signal.SIGTERM else 0.0
            asyncio.get_running_loop().call_later(wait, setattr, server, "should_exit", True)

        def ready() -> None:
            gc.collect()
            gc.freeze()  # nor is what a worker has made of it
            gc.set_threshold(20_000, 20, 100)  # what is young dies without the collector's help
            states[index] = READY
            for number in _ENDINGS:
                asyncio.get_running_loop().add_signal_handler(number, leave, number)

        worker.ready = ready
        server.run(sockets=[public])

    def _operate(self, private: socket.socket, public: socket.socket) -> None:
        """The life of the process for operations. Ctrl-C reaches it too, and is not for it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        public.close()
        digest = digester(self._settings.digest_key or "")
        names = {digest(name): name for name in self._settings.metric_users}
        app = operations(self._api, url=self._url, metrics=self._metrics, states=self._states, names=names)
        uvicorn.Server(_config(app, grace=1.0)).run(sockets=[private])


@contextmanager
def _signals_wait() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)


def _start(target: Callable[..., None], *arguments: object) -> ForkProcess:
    process = _FORK.Process(target=_live, args=(target, *arguments))
    process.start()
    return process


def _live(target: Callable[..., None], *arguments: object) -> None:
    """In the new process, which ends with its parent."""
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    end_with_parent()
    target(*arguments)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))  # our own doing


def say(level: str, event: str, **fields: object) -> None:
    """One line of the log, written at once: for the process that only looks after the others."""
    sys.stdout.write(Line()(Record(time.time(), level, event, fields)))
    sys.stdout.flush()


def _config(app: object, *, grace: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]  # it may be a fraction
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port}: {error.strerror}") from None
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
