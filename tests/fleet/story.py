"""Story: what happens to a fleet under load, one thing after the other, and what was seen meanwhile."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.fire.shots import content, send
from tests.fleet.house import WORKERS, House
from tests.fleet.load import Load
from tests.fleet.requests import EARLY, MANY, stalled
from tests.fleet.watch import Watch, becomes
from tests.programs import asked, charged, is_running
from tests.sockets import owner

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
