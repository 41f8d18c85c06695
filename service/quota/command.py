"""Command: `weir quota`, from its arguments to its exit code."""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from service import app
from service.adapters import keyring
from service.adapters.keyring import KeysError
from service.adapters.ledger import scripts
from service.adapters.ledger.away import LedgerAway
from service.adapters.ledger.subjects import Subjects
from service.adapters.ledger.wire import open_wire
from service.domain.api import Api, DefinitionError
from service.quota import sheet
from service.quota import top as tops
from service.quota.book import Book, book
from service.quota.desk import Desk
from service.quota.misasked import Misasked
from service.quota.subject import digest_in, parted
from service.settings import Settings

Complain = Callable[[Sequence[str]], None]


def run(settings: Settings, options: argparse.Namespace, complain: Complain) -> int:
    """Do what is asked; 0: done, 1: the ledger is away or the subject unknown, 2: wrongly asked."""
    try:
        if settings.redis_url is None:
            raise Misasked("REDIS_URL: expected, as the gateways have it, and WEIR_DIGEST_KEY as well")
        api = app.read_definition(settings.definition or app.default_definition(), settings)
        print(asyncio.run(_do(settings.redis_url, settings, api, options)))
    except Misasked as wrong:
        complain([str(wrong)])
        return 1 if wrong.unknown else 2
    except (DefinitionError, KeysError) as wrong:
        complain(wrong.errors)
        return 1
    except LedgerAway as away:
        complain([f"the ledger is away: {away}"])
        return 1
    return 0


async def _do(url: str, settings: Settings, api: Api, options: argparse.Namespace) -> str:
    """What there is to say when it is done."""
    plans = _plans(settings.keys_file, api)
    wire = open_wire(url, scripts.load(), connections=1)
    subjects, policies = Subjects(wire), book(api)
    try:
        if options.verb == "top":
            return await _top(subjects, policies, options)
        desk = Desk(policies, subjects, plans, app.digester(settings.digest_key or ""))
        return await _carry_out(desk, options)
    finally:
        await wire.close()


def _plans(keys_file: Path | None, api: Api) -> dict[str, str] | None:
    """The plan of each virtual key by its id, empty for those of none; None where nobody says so."""
    if keys_file is None or api.authentication != "virtual-keys":
        return None
    return {key.id: key.plan or "" for key in keyring.read(keys_file, plans=api.plans).values()}


async def _top(subjects: Subjects, policies: Book, options: argparse.Namespace) -> str:
    places, seen = await tops.top(subjects, policies, most=options.most, policy=options.policy)
    return (tops.for_programs if options.json else tops.for_people)(places, seen)


async def _carry_out(desk: Desk, options: argparse.Namespace) -> str:
    words, rest = parted(options.words)
    _check(options.verb, rest)
    subject = await desk.find(words, options.plan)
    name = digest_in(subject.key)
    match options.verb, rest:
        case "set", [policy, "default"]:
            await desk.allow_own(subject, policy)
            return f"{name}: {policy} has its own limit again"
        case "set", [policy, limit]:
            until = await desk.allow(subject, policy, limit, options.lasts)
            return f"{name}: the limit of {policy} is {limit} until {sheet.moment(until)}"
        case "reset", policies:
            done = await desk.reset(subject, policies)
            return f"{name}: nothing is charged with {', '.join(done) or 'no policy'}"
        case "block", _:
            return f"{name}: blocked until {sheet.moment(await desk.block(subject, options.lasts))}"
        case "unblock", _:
            await desk.unblock(subject)
            return f"{name}: not blocked"
    show = sheet.for_programs if options.json else sheet.for_people
    return show(subject, *await desk.seen(subject))


def _check(verb: str, rest: Sequence[str]) -> None:
    """Raises Misasked where the words behind the subject are not those of the verb."""
    if verb == "set" and len(rest) != 2:
        raise Misasked("expected SUBJECT POLICY LIMIT, or default in place of LIMIT")
    if verb not in ("set", "reset") and rest:
        raise Misasked(f"expected nothing after SUBJECT, not {' '.join(rest)!r}")
