"""Under fire: hundreds of requests at one moment over three workers, and every grant kept every limit."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.adapters.ledger.embedded import EmbeddedStore
from service.domain.policies import PolicyOptions
from tests.adapters.ledger.servers import Nodes, program
from tests.fire.memory import Decision, Memory, bounds, remembered
from tests.fire.shots import Heard
from tests.fire.store import opened
from tests.fire.volley import fire, volley
from tests.programs import Gateway, Record, definition, serving, simulating, until

WORKERS = 3
PATIENCE = 60.0  # s
SEED = 1867

# For each kind of user the policy that is too little for them; `plenty` have enough of everything.
KINDS = ("words", "slide", "fixed", "calls", "streams", "cost", "plenty")
USERS = [f"{kind}-{number}" for kind in KINDS for number in range(1, 7)] + ["plenty-7"]
FOR_EVER = {"window": "3650d", "algorithm": "fixed-window"}
WEIGHTS = {
    "gpt-4o*": {"prompt": 0.0025, "completion": 0.01},
    "*": {"prompt": 0.000003, "completion": 0.000007},
}


def policy(name: str, per: str, **options: Any) -> dict[str, Any]:
    """What may be used of tokens is reserved as declared, so that it is known what a refusal was for."""
    if options.get("count") not in ("requests", "concurrent-requests"):
        options = {"reserve": "declared", **options}
    return {"name": name, "per": per.split(), **options}


def scarce(kind: str, **options: Any) -> dict[str, Any]:
    return policy(kind, "credential user", when={"user": [f"{kind}-*"]}, **options)


POLICIES = [
    scarce("words", count="completion-tokens", limit=600, window="1m", burst="10%"),
    scarce("slide", limit=1200, window="20s", algorithm="sliding-window"),
    scarce("fixed", limit=1200, window="1m", algorithm="fixed-window"),
    scarce("calls", count="requests", limit=5, **FOR_EVER),
    scarce("streams", count="concurrent-requests", limit=2),
    scarce("cost", count="cost", limit=3.25, weights=WEIGHTS, **FOR_EVER),
    policy("key-year", "credential", limit=10**6, window="year", timezone="Asia/Tokyo"),
    policy("prompts", "model", limit=20_000, reserve="prompt-only", **FOR_EVER),
    policy("everyone", "", limit=60_000, **FOR_EVER),
    policy("together", "", limit=250, count="concurrent-requests"),
    policy("tried", "model", limit=100, enforce=False, **FOR_EVER),
]
MADE = [PolicyOptions(**options).policy() for options in POLICIES]
MEMORY = Memory(
    [
        (made, options.get("when", {"user": ["*"]})["user"][0])
        for made, options in zip(MADE, POLICIES, strict=True)
    ],
    USERS,
)
CERTAIN = {"calls", "cost"}  # these refuse, however fast or slowly everything goes


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with simulating() as url:
        yield url


@pytest.fixture(params=["valkey-server", "redis-server", "cluster"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty ledger: on one server, of each engine, and over three masters."""
    if request.param != "cluster":
        with EmbeddedStore(program(request.param)) as store:
            yield store.url
        return
    nodes = Nodes(program("valkey-server"), tmp_path)
    try:
        nodes.start()
        yield nodes.url
    finally:
        nodes.close()


async def test_whatever_comes_at_once_no_grant_goes_beyond_a_limit_and_in_the_end_all_accounts_are_right(
    ledger: str, model: str, tmp_path: Path
) -> None:
    shots = volley(SEED, USERS)
    assert len(shots) >= WORKERS * 200
    file = definition(tmp_path, *POLICIES)
    arguments = ("--definition", str(file), "--ledger-deadline", "20s")
    with serving(*arguments, workers=WORKERS, REDIS_URL=ledger, UPSTREAM_URL=model) as gateway:
        heard = await fire(gateway.url, shots, within=PATIENCE)
        until(lambda: gateway.text.count('"exchange.response"') >= len(shots))
        records = gateway.records("exchange.response")
        decisions = MEMORY.decisions(records)
        await the_accounts_are_right(ledger, decisions)
        assert gateway.stop() == 0
    nothing_was_lost(gateway, records, heard)
    for decision in decisions:
        it_was_right(decision)
    assert {one.record["policy"] for one in decisions if not one.granted} >= CERTAIN


def nothing_was_lost(gateway: Gateway, records: Sequence[Record], heard: Sequence[Heard]) -> None:
    """Each request ended once, as its client was told, and the ledger was there for each."""
    ended = {record["id"]: record for record in records}
    assert len(ended) == len(records) == len(heard) == len(gateway.records("exchange.response"))
    for one in heard:
        assert one.id is None or ended[one.id]["status"] == one.status
        assert one.id is not None or not one.stayed
    assert not any("ledger" in record for record in records)
    assert gateway.records(level="error") == []


def it_was_right(decision: Decision) -> None:
    """A grant is within every limit, and has been settled; a refusal could not have been a grant."""
    record = decision.record
    assert set(record["charged"]) == {claim.policy.name for claim in decision.claims}
    if decision.granted:
        for claim in decision.claims:
            assert decision.charged(claim) <= claim.policy.capacity or not claim.policy.enforce, record
        assert record["settled"] == "settled"
        assert all(record["used"][kind] <= most for kind, most in record["estimate"].items()), record
    else:
        refusing = decision.refusing
        assert refusing.policy.enforce
        assert decision.charged(refusing) + refusing.amount > refusing.policy.capacity, record
        assert (record["status"], "settled" in record) == (429, False)


async def the_accounts_are_right(url: str, decisions: Sequence[Decision]) -> None:
    """Nothing is open, and what stands charged is what the history says, in every account there is."""
    charges = remembered(decisions, split=url.startswith("redis+cluster"))
    async with opened(url) as store:
        there = await store.fields()
        for subject, fields in there.items():
            assert [name for name in fields if name.startswith("~") and name != "~"] == []
            policies = [made for made in MADE if made.account in fields]
            seen = await store.stands(subject, policies)
            for one in seen.standings:
                made = one.claim.policy
                least, most = bounds(made, charges.get((subject, made.account), []), seen.now)
                assert least <= one.charged <= most, (made.name, subject)
    found = {(subject, name) for subject, fields in there.items() for name in fields}
    assert set(charges) <= found
