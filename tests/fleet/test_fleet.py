"""A fleet behind its balancer, as it is deployed: what happens to one of its parts is nobody else's loss."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from service.app import digester
from service.domain.tokens import Tokenizer
from tests.deploy.queries import dashboards, queries, silent
from tests.fleet.books import Books, compared, known, opened, refusal
from tests.fleet.house import House, deployed, needed
from tests.fleet.load import Exchange, Load
from tests.fleet.requests import (
    CALLS,
    KINDS,
    LIMIT,
    LONGEST,
    MANY,
    TRUE,
    requests,
)
from tests.fleet.story import HELD, Story, lived
from tests.fleet.watch import Watch
from tests.programs import DIGEST_KEY, asked, charged

SEED = 1912


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
