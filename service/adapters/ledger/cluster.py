"""Cluster: a link to each master of a Redis Cluster, and for each call the one that has its keys."""

import asyncio
import random
from collections.abc import Iterator, Sequence

from service.adapters.ledger import address, slots
from service.adapters.ledger.address import Node
from service.adapters.ledger.away import Elsewhere, LedgerAway
from service.adapters.ledger.errand import Argument
from service.adapters.ledger.link import Link
from service.adapters.ledger.scripts import Script, Scripts

PASSING = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "ConnectionError")
SHORTEST, LONGEST = 0.002, 0.05  # s before a call is tried once more
LEAST = 0.01  # s that must be left for it
SOON, LATE = 0.1, 2.0  # s between two looks at the map; longer while none succeeds


class Cluster:
    """Like a `Link`, but a call must name keys of one slot.

    What a node answers without having carried a call out (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) is followed
    within the call's deadline. A call whose outcome is unknown is never repeated. `url` is a cluster's, else
    ValueError is raised; `connections` to each master; `timeout` in seconds.
    """

    splits = True

    def __init__(self, url: str, scripts: Scripts, *, connections: int = 2, timeout: float = 1.0) -> None:
        self.scripts = scripts
        self._address = address.read(url)
        if self._address.kind != "cluster":
            raise ValueError("redis+cluster://host:port")
        self._connections = connections
        self._timeout = timeout
        self._slots = slots.unknown()
        self._links: dict[Node, Link] = {}
        self._named: set[Node] = set()  # by MOVED or ASK, since the last look
        self._doubted: set[Node] = set()  # something went wrong with them since then
        self._looking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._rest = SOON
        self._rested = 0.0  # when the next look may be, s of the loop's clock

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, deadline: float
    ) -> tuple[str, list[int]]:
        """Run a script; returns its status and its numbers. `deadline` in seconds.

        Raises LedgerAway, and ValueError where the keys are not those of one slot.
        """
        slot = slots.slot_of(keys)
        clock = asyncio.get_running_loop().time
        until = clock() + deadline
        pauses = _pauses()
        asked: Node | None = None
        while True:
            node = asked or await self._master(slot, until - clock())
            link, left = self._link(node), until - clock()
            try:
                return await link.run(script, keys, arguments, deadline=left, asking=asked is not None)
            except LedgerAway as away:
                asked = self._heed(slot, node, away)
                if clock() + (pause := next(pauses)) + LEAST > until:
                    raise
            await asyncio.sleep(pause)

    async def warm(self) -> None:
        """Learn the map, connect to each master, load the scripts. Raises LedgerAway; the others are warm."""
        warmed = (link.warm() for link in await self.masters())
        for failed in await asyncio.gather(*warmed, return_exceptions=True):
            if failed:
                raise failed

    async def masters(self) -> list[Link]:
        """A link to each master there is, for what every one must be asked. Raises LedgerAway."""
        if not self._slots.nodes:
            await asyncio.shield(self._look())
        if not self._slots.nodes:
            raise LedgerAway("no node tells the slots", unknown=False)
        return [self._link(node) for node in sorted(self._slots.owners())]

    async def master_of(self, key: str, *, anew: bool = False) -> Link:
        """A link to the master that has a key; `anew` looks at the map before. Raises LedgerAway."""
        if anew:
            await asyncio.wait([self._look()], timeout=LATE)
        return self._link(await self._master(slots.slot_of([key]), LATE))

    async def ask(self, *command: Argument) -> object:
        """Run one ordinary command on one of the masters; None where it is not allowed. Raises LedgerAway."""
        first, *_ = await self.masters()
        return await first.ask(*command)

    async def is_there(self) -> bool:
        """Whether every master answers."""
        try:
            there = all(await asyncio.gather(*(link.is_there() for link in await self.masters())))
        except LedgerAway:
            return False
        if not there:
            self._look()
        return there

    async def close(self) -> None:
        """Let what is under way end, then close the connections."""
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*self._closing, *(link.close() for link in self._links.values()))

    # -- where a call goes -----------------------------------------------------------------------

    async def _master(self, slot: int, patience: float) -> Node:
        """Who has the slot, as far as is known within so many seconds. Raises LedgerAway."""
        if self._slots.masters[slot] is None:
            await asyncio.wait([self._look()], timeout=patience)
        master = self._slots.masters[slot]
        if master is None:
            raise LedgerAway("no master has the slot", unknown=False)
        return master

    def _heed(self, slot: int, node: Node, away: LedgerAway) -> Node | None:
        """The node to ask instead, this once; None: the one that the map names. Raises what is final."""
        if isinstance(away, Elsewhere):
            other = (away.node[0] or node[0], away.node[1])
            self._named.add(other)
            if away.asking:
                return other
            self._slots.masters[slot] = other
        else:
            self._doubted.add(node)
        self._look()
        if away.unknown or away.reason not in (*PASSING, "MOVED"):
            raise away
        return None

    def _link(self, node: Node) -> Link:
        if node not in self._links:
            url = self._address.server(node)
            self._links[node] = Link(url, self.scripts, connections=self._connections, timeout=self._timeout)
        return self._links[node]

    # -- the map ---------------------------------------------------------------------------------

    def _look(self) -> "asyncio.Task[None]":
        """Look at the map anew, soon. There is one look at a time."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._learn())
        return self._looking

    async def _learn(self) -> None:
        """Learn the map from the first node that tells it; where none does, the old one stands."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._rested - clock())
        self._rest = min(self._rest * 2, LATE)
        for node in self._sources():
            try:
                answer = await self._link(node).ask("CLUSTER", "SLOTS")
                self._slots = slots.told(answer, by=node)
            except (LedgerAway, ValueError):
                self._doubted.add(node)
            else:
                self._rest = SOON
                self._forget()
                break
        self._rested = clock() + self._rest * random.uniform(0.5, 1.5)

    def _sources(self) -> list[Node]:
        """Who may know the map, in any order, but last those that something went wrong with."""
        nodes = self._slots.nodes.union(self._address.nodes)
        return sorted(nodes, key=lambda node: (node in self._doubted, random.random()))

    def _forget(self) -> None:
        """Drop the links to nodes that are masters no longer, once what is under way has ended."""
        for node in set(self._links) - self._slots.owners() - self._named:
            closing = asyncio.get_running_loop().create_task(self._links.pop(node).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._named.clear()
        self._doubted.clear()


def _pauses() -> Iterator[float]:
    """Seconds before each next try: at once, twice, as after MOVED and ASK; then ever longer."""
    yield from (0.0, 0.0)
    pause = SHORTEST
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST)
