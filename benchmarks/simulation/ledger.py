"""Ledger: the scripts on a server, with the time as an argument."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.link import Argument
from service.adapters.ledger.reservation import Layout

LEASE = 60_000  # ms
LATE_AFTER = 5_000  # ms
MARKER = 600_000  # ms that a late settle still corrects after a lease has ended


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script said: `wait` in ms, `refusing` an index from 1, `charged` in units with each policy."""

    status: str
    refusing: int = 0
    wait: int = 0
    charged: tuple[int, ...] = ()


class Ledger:
    """One method a script; `now` in ms, amounts in units of the policies."""

    def __init__(self, client: redis.Redis, scripts: lua.Scripts | None = None) -> None:
        self._client = client
        self._scripts = scripts or lua.load()
        for script in self._scripts:
            client.script_load(script.text)

    def reserve(self, now: int, rid: str, whole: Layout, amounts: Sequence[int], *, undo: bool) -> Answer:
        """Charge the amounts with every policy, or with none."""
        own: list[Argument] = [now + LATE_AFTER, rid, LEASE, int(undo)]
        return self._ask(self._scripts.reserve, whole, amounts, now, own)

    def renew(self, now: int, rid: str, whole: Layout, amounts: Sequence[int], *, undo: bool) -> Answer:
        """Move the lease on; the amounts are what was used so far."""
        own: list[Argument] = [now + LATE_AFTER, rid, LEASE, int(undo)]
        return self._ask(self._scripts.renew, whole, amounts, now, own)

    def settle(
        self,
        now: int,
        rid: str,
        whole: Layout,
        amounts: Sequence[int],
        *,
        ends: int,
        verb: str = "settle",
        first: bool = True,
    ) -> Answer:
        """Replace what was charged by what was used. `ends`: when the lease ends, as its worker knows it."""
        mark = int(verb == "release" or not first)
        own: list[Argument] = [now + LATE_AFTER, rid, verb, int(first), mark, ends + MARKER]
        return self._ask(self._scripts.settle, whole, amounts, now, own)

    def peek(self, now: int, whole: Layout) -> Answer:
        """What is charged with the policies of one subject; `refusing` is how much is open or marked."""
        nothing = [0] * (whole.first + len(whole.claims))
        return self._ask(self._scripts.peek, whole, nothing, now, [])

    def _ask(
        self,
        script: lua.Script,
        whole: Layout,
        amounts: Sequence[int],
        now: int,
        own: Sequence[Argument],
    ) -> Answer:
        arguments = whole.arguments(amounts, now)
        said = self._client.evalsha(script.sha, len(whole.keys), *whole.keys, now, *own, *arguments)
        refusing, wait, *charged = [*said[3:], 0, 0][: max(2, len(said) - 3)]
        return Answer(said[0].decode(), refusing, wait, tuple(charged))
