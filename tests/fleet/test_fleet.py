"""A fleet behind its balancer, as it is deployed: what happens to one of its parts is nobody else's loss."""

import asyncio
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.app import digester
from service.domain.tokens import Tokenizer
from tests.deploy.queries import dashboards, queries, silent
from tests.fire.shots import content, send
from tests.fleet.books import Books, compared, known, opened, refusal
from tests.fleet.house import WORKERS, House, deployed, needed
from tests.fleet.load import Exchange, Load
from tests.fleet.requests import (
    CALLS,
    EARLY,
    KINDS,
    LIMIT,
    LONGEST,
    MANY,
    TRUE,
    requests,
    stalled,
)
from tests.fleet.watch import Watch, becomes
from tests.programs import DIGEST_KEY, asked, charged, is_running
from tests.sockets import owner

SEED = 1912
PATIENCE = 180.0  # s for all of it
LEAVING = 10
HELD: dict[str, Any] = {
    "model": "gpt-4.1",
    "user": "large-0",
    "messages": [],
    "max_tokens": 2000,
    "stream": True,
}


@dataclass(slots=True)
class Story:
    """What happens to a house under load, and what was seen meanwhile."""

    house: House
    load: Load
    watch: Watch
    before: set[str] = field(default_factory=set)  # what the replaced gateway had logged when it was told
    kept: tuple[int, int] = (0, 0)  # what stood charged before the store ended, and after

    async def is_calm(self) -> None:
        """Everybody asks; the early ones have come to their end."""
        self.load.begins("calm")
        await self.load.release(EARLY)
        await self.load.until(EARLY)

    async def replaces_a_gateway(self) -> None:
        """The first is told to end, drains, and another takes its place."""
        house, leaving = self.house, self.house.gateways[0]
        self.load.begins("replacing")
        async with self._trickle():
            await self.load.until(EARLY + 100)
            self.before = {one["id"] for one in leaving.records("exchange.response")}
            leaving.process.send_signal(signal.SIGTERM)
            await becomes(lambda: self._scraped(0) >= len(self.before))
            await becomes(lambda: leaving.process.poll() is not None)
        assert leaving.ended() == 0
        new = house.gateway(0, 3)
        await asyncio.to_thread(new.wait_until_ready, WORKERS)
        house.gateways.append(new)
        house.reload()
        async with self._trickle():
            await becomes(lambda: new.records("exchange.response"))

    async def kills_a_worker(self) -> None:
        """Of the second gateway, one whose client is in the middle of a stream."""
        gateway = self.house.gateways[1]
        async with self._trickle():
            port = int(gateway.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                content({**HELD, "messages": [{"role": "user", "content": "?"}]}, "rate=10, tokens=2000")
            )
            await reader.readuntil(b'"content":"')
            worker = owner(gateway, writer.get_extra_info("sockname")[1])
            self.load.begins("killing")
            os.kill(worker, signal.SIGKILL)
            await becomes(lambda: not is_running(worker))
            await asyncio.to_thread(asked, self.house.url + "/v1/models")  # nginx has seen it now too
            self.load.begins("after the kill")
            with suppress(ConnectionResetError):
                assert b"[DONE]" not in await reader.read()
            writer.close()
            await asyncio.to_thread(gateway.waiting_for, "worker.ready", count=WORKERS + 1)

    async def restarts_the_store(self) -> None:
        """It dies, the alert comes and fires; it is back with all that it knew, and the alert goes."""
        ledger, store = self.house.ledger, self.house.store
        early = charged(ledger, "early")
        async with self._trickle():
            self.load.begins("losing the store")
            store.kill()
            self.load.begins("without the store")
            await becomes(lambda: "pending" in self.watch.states("LedgerAway"))
            await becomes(lambda: "firing" in self.watch.states("LedgerAway"))
            self.load.begins("getting it back")
        store.start()
        self.kept = early, charged(ledger, "early")
        await becomes(lambda: not self.watch.states("LedgerAway"))
        self.load.begins("with the store again")

    async def comes_to_its_end(self) -> None:
        """The rest of the requests; then some who leave when a model thinks; all is settled, and scraped."""
        await self.load.release(MANY)
        await self.load.until(MANY)
        leaving = [asyncio.create_task(send(self.house.url, shot)) for shot in stalled(LEAVING)]
        stats = self.house.model.removesuffix("/v1") + "/simulator/stats"
        await becomes(lambda: f'"open": {LEAVING}' in asked(stats)[1])
        for one in leaving:
            one.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await becomes(lambda: self._gone() == LEAVING)
        await becomes(lambda: all(map(self._is_scraped, range(1, len(self.house.gateways)))))
        await becomes(lambda: all(not value for _, value in self.watch.series("weir_settles_pending")))

    def _gone(self) -> int:
        return sum(len(one.records("exchange.response", status=None)) for one in self.house.gateways)

    def _scraped(self, number: int) -> int:
        where = self.house.instance(number)
        return sum(self.watch.last("weir_requests_total", "route", instance=where).values())

    def _is_scraped(self, number: int) -> bool:
        """Whether Prometheus has what a gateway has counted."""
        page = asked(self.house.gateways[number].operations + "/metrics")[1]
        counts = re.findall(r"^weir_requests_total\{.*\} (\S+)$", page, re.MULTILINE)
        return self._scraped(number) == sum(map(float, counts))

    @asynccontextmanager
    async def _trickle(self) -> AsyncIterator[None]:
        """Requests come all the while."""

        async def flow() -> None:
            while True:
                await self.load.release(10)
                await asyncio.sleep(0.07)

        flowing = asyncio.create_task(flow())
        try:
            yield
        finally:
            flowing.cancel()


async def lived(story: Story) -> None:
    """All of it, under load."""
    clients = asyncio.create_task(story.load.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await story.is_calm()
            await story.replaces_a_gateway()
            await story.kills_a_worker()
            await story.restarts_the_store()
            await story.comes_to_its_end()
            await clients
    finally:
        clients.cancel()


@pytest.mark.timeout(240)
async def test_a_fleet_loses_nothing_but_what_was_on_its_way_through_what_died(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with deployed(tmp_path) as house:
        story = Story(house, Load(house.url, requests(SEED)), Watch(house.watch))
        try:
            await lived(story)
            books = opened(house.gateways, story.load.exchanges, tokenizer)
            only_what_the_worker_held_has_failed(story.load)
            policies_did_what_they_say(story.load)
            limits_held(story, books)
            prometheus_counts_what_was_sent(story, books)
            rules_and_panels_find_what_they_look_for(story.watch)
            pages_are_well_formed(house)
            assert story.kept[0] == story.kept[1] > 0
        finally:
            story.watch.close()


def only_what_the_worker_held_has_failed(load: Load) -> None:
    """Each client that stayed was answered to the end, but for those of the worker that was killed."""
    assert len(load.exchanges) == MANY
    others = [one for one in load.exchanges if one.failed and "killing" not in one.during]
    assert [(one.heard, one.during, one.answered_in) for one in others] == []


def policies_did_what_they_say(load: Load) -> None:
    """While the store was away, those that need it refused, others let pass; else nobody missed it."""
    seen = set()
    for one in load.exchanges:
        refused = refusal(one)
        if one.during == {"without the store"} == {one.answered_in} and asks_well(one):
            mode = KINDS[one.request.kind][1]["on-ledger-failure"]
            seen.add(mode)
            assert (refused == (one.request.kind, "ledger")) == (mode == "refuse"), one
        if refused and refused[1] == "ledger":
            times = {"losing the store", "without the store", "getting it back"}
            assert one.during & times, one
    assert seen == {"refuse", "allow", "local"}


def asks_well(exchange: Exchange) -> bool:
    """Whether the request is one that reaches the limits."""
    return "temperature" not in exchange.request.asked


def limits_held(story: Story, books: Books) -> None:
    """Nobody was let through beyond a limit, and what stands charged is what was used, and what was lost."""
    used: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for one in story.load.exchanges:
        tokens = known(one, books.tokenizer)
        used[one.request.shot.user] += sum(tokens or ())
        calls[one.request.shot.user] += tokens is not None
    assert all(used[user] <= LIMIT for user in used if user.startswith("small"))
    assert all(calls[user] <= CALLS for user in calls if user.startswith("calls"))
    refused = {found for one in story.load.exchanges if (found := refusal(one))}
    assert {("small", "limit"), ("calls", "limit")} <= refused
    in_flight = sum("killing" in one.during for one in story.load.exchanges) + 1
    digest = digester(DIGEST_KEY)
    for kind in ("small", "large", "early"):
        users = {digest(f"{kind}-{number}") for number in range(KINDS[kind][0])}
        logged: int = sum(
            int(record["used"]["prompt"]) + int(record["used"]["completion"])
            for records in books.logged
            for record in records.values()
            if record["user"] in users and record.get("settled")
        )
        lost = in_flight * (LONGEST + 1000) + int(HELD["max_tokens"]) if kind != "early" else 0
        assert logged <= charged(story.house.ledger, kind) <= logged + lost, kind


def prometheus_counts_what_was_sent(story: Story, books: Books) -> None:
    """By status, refusals and tokens; but for what two gateways counted when nobody could look any more."""
    wrong = []
    for number, records in enumerate(books.logged):
        where = story.house.instance(number)
        most = [*records, *(books.unlogged if number == 1 else ())]
        least = [id for id in records if id in story.before] if number == 0 else [*records]
        statuses = story.watch.last('weir_requests_total{route="chat"}', "status", instance=where)
        refusals = story.watch.last("weir_refusals_total", "policy", "reason", instance=where)
        tokens = story.watch.last("weir_tokens_total", "model", "kind", instance=where)
        tokens = {by: n for by, n in tokens.items() if by[0] in TRUE and by[1] in ("prompt", "completion")}
        wrong += compared(books.statuses(least, records), statuses, books.statuses(most, records))
        wrong += compared(books.refusals(least), refusals, books.refusals(most))
        wrong += compared(books.tokens(least), tokens, books.tokens(most))
    assert wrong == []
    assert len(books.unlogged) <= sum("killing" in one.during for one in story.load.exchanges)


def rules_and_panels_find_what_they_look_for(watch: Watch) -> None:
    """No rule is in error, each that records has recorded, and no panel is empty."""
    rules = watch.rules()
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert [name for name in recorded if not watch.series(name)] == []
    assert all(queries(dashboard) for dashboard in dashboards())
    assert silent(watch.client, "1m") == []


def pages_are_well_formed(house: House) -> None:
    """As promtool sees it."""
    for gateway in house.gateways[1:]:
        page = asked(gateway.operations + "/metrics")[1]
        done = subprocess.run(
            [needed("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
