"""App: builds everything once, and frames its life; the only place that knows it all."""

import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import anyio
from starlette.routing import Route, Router

from service import __version__, interceptors
from service.adapters import vocabularies
from service.adapters.keyring import Keyring, PassThrough, VirtualKeys
from service.adapters.ledger import Ledger
from service.adapters.ledger import scripts as lua
from service.adapters.ledger.breaker import State
from service.adapters.ledger.journal import Journal
from service.adapters.ledger.leaderboard import Leaderboard
from service.adapters.ledger.wire import open_wire
from service.adapters.logs import Logs
from service.adapters.metrics import Metrics
from service.adapters.threads import Threads
from service.adapters.upstream import Upstream
from service.adapters.vitals import Vitals
from service.domain.api import Api, DefinitionError, parse
from service.domain.reckoning import Reckoner
from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import PATTERNS
from service.domain.tokens.encodings import build as build_encoding
from service.domain.tokens.options import Counting
from service.gateway import CHAT, MODELS, OTHER, Gateway, Parts
from service.settings import Settings

DEFINITION = "OpenAI_Chat_Completions_API.yaml"
SILENCE = 1.0  # s without a word after which a connection to the ledger is given up, or a call's deadline
LONGEST_REMEMBERED = 512  # characters of a text whose digest is made once
TICK = 1.0  # s between two looks at what changes by itself
EPOCH = 10**12  # ms; a ledger that says less has not told the time yet


@dataclass(slots=True)
class Worker:
    """The process that serves: what it is doing, and whether it is on its way out."""

    draining: bool = False
    exchanges: int = 0  # under way, their endings included
    number: int = 0  # which of the workers it is; whoever takes its place has the same
    ready: Callable[[], None] = lambda: None

    async def idle(self, patience: float = 2.0) -> None:
        """Wait until no exchange is under way, for at most `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.exchanges:  # noqa: ASYNC110 - counted on the hot path, awaited once
                    await asyncio.sleep(0.01)


def default_definition() -> Path:
    """The definition that comes with Weir: inside the installed package, or in a checkout's deploy/."""
    within = Path(__file__).parent / DEFINITION
    return within if within.is_file() else Path(__file__).parents[1] / "deploy" / DEFINITION


def read_definition(path: Path, settings: Settings) -> Api:
    """Read and decode a definition. Raises DefinitionError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError([f"{path}:1:1: expected a readable file of UTF-8 text: {error}"]) from None
    return parse(
        text,
        file=str(path),
        variables=settings.definition_variables(),
        steps=interceptors.options(),
        phases=interceptors.phases(),
    )


def load_tokenizer(counting: Counting | None = None) -> Tokenizer:
    """The tokenizer, with the vocabularies that come with Weir. Raises VocabularyError."""
    encodings = {name: build_encoding(name, vocabularies.read(name)) for name in PATTERNS}
    return Tokenizer(encodings, counting)


def digester(key: str) -> Callable[[str], str]:
    """Keyed digests (HMAC-SHA-256, 128 bits, 22 characters) of what must not be seen."""

    def made(text: str) -> str:
        digest = hmac.digest(key.encode(), text.encode(), hashlib.sha256)[:16]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    remembered = functools.lru_cache(maxsize=8192)(made)
    return lambda text: remembered(text) if len(text) <= LONGEST_REMEMBERED else made(text)


def build(
    settings: Settings, api: Api, tokenizer: Tokenizer, *, redis_url: str, logs: Logs, worker: Worker
) -> Router:
    """The application of one worker. Raises DefinitionError where something it names is not there."""
    metrics = Metrics(settings.metric_models)
    metrics.runs(version=__version__, revision=api.revision, loaded=time.time())
    wire = open_wire(redis_url, lua.load(), timeout=max(SILENCE, settings.ledger_deadline))
    ledger = Ledger(
        wire,
        lease=settings.lease,
        deadline=settings.ledger_deadline,
        workers=settings.workers,
        observe=metrics.ledger_call,
    )
    digest = digester(settings.digest_key or "")
    threads = Threads(settings.counting_threads)
    asked = partial(_is_asked, ledger)
    journal = Journal(wire, keep=settings.exchanges, may_send=asked)
    leaderboard = Leaderboard(wire, digest, may_send=asked)
    tools = interceptors.Tools(
        *(api, ledger, tokenizer, logs, metrics, digest, settings.trusted_proxies, threads, journal.note)
    )
    try:
        request_flow = [interceptors.build(step, tools) for step in api.request]
        response_flow = [interceptors.build(step, tools) for step in api.response]
    except ValueError as error:
        raise DefinitionError([str(error)]) from None
    response_flow.append(cast(interceptors.Interceptor, leaderboard))
    keyring, key = _keyring(settings, api, digest, logs)
    upstream = Upstream(api.upstream, connections=settings.upstream_connections)
    reckoner = Reckoner(tokenizer, threads.run)
    parts = Parts(
        *(api, request_flow, response_flow, keyring, upstream, key),
        *(threads, reckoner, metrics, logs, worker),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Router) -> AsyncIterator[None]:
        logs.start()
        logs.adopt()
        await ledger.open()
        anyio.current_time()  # its backend is imported at first use, which is not to be a request
        journal.open()
        leaderboard.open()
        tell = _teller(parts, ledger, journal)
        vitals = Vitals(partial(metrics.vitals, worker.number))
        watching = [asyncio.create_task(one) for one in (_tick(parts, ledger, tell), vitals.run())]
        logs.info("worker.ready", revision=api.revision, version=__version__)
        worker.ready()
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await worker.idle()
            await asyncio.gather(journal.close(), leaderboard.close())
            await ledger.close()
            tell()
            await upstream.close()
            threads.close()
            logs.info("worker.stopped")
            logs.close()

    return Router(_routes(parts), redirect_slashes=False, lifespan=lifespan)


def _routes(parts: Parts) -> list[Route]:
    base = parts.api.base_path
    return [
        *(Route(base + route.path, Gateway(parts, route)) for route in (CHAT, MODELS)),
        Route("/{path:path}", Gateway(parts, OTHER)),
    ]


def _keyring(
    settings: Settings, api: Api, digest: Callable[[str], str], logs: Logs
) -> tuple[Keyring, str | None]:
    """Who calls, and the key that goes upstream instead of theirs."""
    if api.authentication == "pass-through":
        return PassThrough(digest), None
    needed = {"WEIR_KEYS_FILE": settings.keys_file, "OPENAI_API_KEY": settings.openai_api_key}
    missing = [
        f"{name}: expected with authentication: virtual-keys" for name, value in needed.items() if not value
    ]
    if missing or settings.keys_file is None:
        raise DefinitionError(missing)
    return VirtualKeys(settings.keys_file, logs, plans=api.plans), settings.openai_api_key


async def _tick(parts: Parts, ledger: Ledger, tell: Callable[[], None]) -> None:
    """Look at what changes by itself: the keys file, the ledger, and the numbers nobody else reports."""
    there = True
    while True:
        if await ledger.check() is not there:
            there = not there
            if there:
                parts.logs.info("ledger.back")
            else:
                parts.logs.warning("ledger.away", why=ledger.guard.why or "no answer to PING")
        parts.keyring.refresh(time.monotonic())
        parts.metrics.ledger_available(there)
        tell()
        await asyncio.sleep(TICK)


def _is_asked(ledger: Ledger) -> bool:
    """Whether the ledger's breaker lets everything through."""
    return ledger.breaker is State.CLOSED


def _teller(parts: Parts, ledger: Ledger, journal: Journal) -> Callable[[], None]:
    """What publishes the numbers of the logs and the ledger, as far as they have grown since."""
    before = dict.fromkeys(("records", "exchanges", "lost", "dropped", "forgotten"), 0)

    def grown(name: str, count: int) -> int:
        more, before[name] = count - before[name], count
        return more

    def tell() -> None:
        metrics = parts.metrics
        metrics.log_records_dropped(grown("records", parts.logs.dropped))
        metrics.exchanges_dropped(grown("exchanges", journal.dropped))
        metrics.reservations_open(ledger.reservations)
        metrics.reservations_lost(grown("lost", ledger.lost))
        metrics.settles_pending(ledger.pending)
        metrics.settles_lost(
            dropped=grown("dropped", ledger.dropped), forgotten=grown("forgotten", ledger.forgotten)
        )
        metrics.ledger_breaker(ledger.breaker)
        metrics.workers_alive(ledger.workers)
        if (theirs := ledger.now()) > EPOCH:
            metrics.clock_skew(time.time() - theirs / 1000)

    return tell
