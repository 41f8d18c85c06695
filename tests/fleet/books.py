"""Books: what clients know of their requests, put side by side with what gateways logged of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.domain.tokens import Tokenizer
from tests.fleet.load import Exchange
from tests.fleet.requests import TRUE
from tests.programs import Gateway, Record

Sums = Counter[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Books:
    """The records of each gateway by id, and what was heard by id; the ids that no gateway logged."""

    logged: Sequence[Mapping[str, Record]]
    heard: Mapping[str, Exchange]
    tokenizer: Tokenizer

    @property
    def unlogged(self) -> set[str]:
        """Ids that were heard, of which no gateway that ended by itself, or lives, knows."""
        return set(self.heard) - {id for records in self.logged for id in records}

    def statuses(self, ids: Sequence[str], records: Mapping[str, Record]) -> Sums:
        """Exchanges by status, as they were heard; as logged where nobody stayed to hear."""
        return Counter((str(self._status(id, records)).lower(),) for id in ids)

    def refusals(self, ids: Sequence[str]) -> Sums:
        """Refusals by policy and reason, as they were heard."""
        found = (refusal(self.heard[id]) for id in ids if id in self.heard)
        return Counter(one for one in found if one)

    def tokens(self, ids: Sequence[str]) -> Sums:
        """Tokens by model and kind, of the models whose usage clients know."""
        sums: Sums = Counter()
        for id in ids:
            if id in self.heard and (used := known(self.heard[id], self.tokenizer)):
                model = self.heard[id].request.asked["model"]
                sums[model, "prompt"] += used[0]
                sums[model, "completion"] += used[1]
        return +sums

    def _status(self, id: str, records: Mapping[str, Record]) -> int | None:
        exchange = self.heard.get(id)
        if exchange is not None and exchange.heard is not None:
            return exchange.heard.status
        status: int | None = records[id]["status"]
        return status


def opened(gateways: Sequence[Gateway], exchanges: Sequence[Exchange], tokenizer: Tokenizer) -> Books:
    """The books of all that happened."""
    logged = [{one["id"]: one for one in gateway.records("exchange.response")} for gateway in gateways]
    for records in logged:
        for id in [id for id, record in records.items() if record["route"] != "chat"]:
            del records[id]
    heard = {one.heard.id: one for one in exchanges if one.heard and one.heard.id and not one.failed}
    return Books(logged, heard, tokenizer)


def refusal(exchange: Exchange) -> tuple[str, str] | None:
    """The policy that refused, and why; None where none did."""
    error = exchange.error
    if error.get("code") == "rate_limiter_unavailable":
        return exchange.request.kind, "ledger"
    refused = exchange.heard is not None and exchange.heard.status == 429
    return (exchange.request.kind, "limit") if refused and "simulated" not in error["message"] else None


def known(exchange: Exchange, tokenizer: Tokenizer) -> tuple[int, int] | None:
    """The prompt and the completion of an answer whose usage the provider told; None of others."""
    asked, heard = exchange.request.asked, exchange.heard
    if heard is None or heard.status != 200 or exchange.failed or asked["model"] not in TRUE:
        return None
    return tokenizer.prompt(asked, asked["model"]).tokens, exchange.completion


def compared(least: Sums, found: Mapping[tuple[str, ...], int], most: Sums) -> list[str]:
    """What was not found between the least and the most that it may be."""
    return [
        f"{labels}: {found.get(labels, 0)}, not from {least[labels]} to {most[labels]}"
        for labels in {*least, *found, *most}
        if not least[labels] <= found.get(labels, 0) <= most[labels]
    ]
