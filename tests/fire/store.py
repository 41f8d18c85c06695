"""Store: the ledger as it stands, wherever it is: one server, or the masters of a cluster."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.subjects import Seen, Subjects
from service.adapters.ledger.wire import Wire, open_wire
from service.domain.policy import Claim, Policy
from service.domain.subject import PREFIX


@dataclass(frozen=True, slots=True)
class Store:
    """A ledger that is looked at, and not touched."""

    wire: Wire

    async def fields(self) -> dict[str, list[str]]:
        """The fields of every subject there is."""
        found = {}
        for master in await self.wire.masters():
            cursor = b"0"
            while True:
                answer: Any = await master.ask("SCAN", cursor, "MATCH", f"{PREFIX}*", "TYPE", "hash")
                cursor, keys = answer
                for key in keys:
                    names: Any = await master.ask("HKEYS", key)
                    found[key.decode()] = [name.decode() for name in names]
                if cursor == b"0":
                    break
        return found

    async def stands(self, subject: str, policies: Sequence[Policy]) -> Seen:
        """How a subject stands now with these policies."""
        return await Subjects(self.wire).peek([Claim(policy, subject, 0) for policy in policies])


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    wire = open_wire(url, lua.load())
    try:
        yield Store(wire)
    finally:
        await wire.close()
