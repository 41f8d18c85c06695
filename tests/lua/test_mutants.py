"""The tests of the scripts, tested: of every mutant, a promise says that it is broken."""

import pytest
import redis

from service.adapters.ledger import scripts as lua
from service.adapters.ledger.embedded import EmbeddedStore
from tests.lua.calls import Calls
from tests.lua.mutants import MUTANTS, Mutant

FEWEST = 25


def mutated(mutant: Mutant) -> lua.Scripts:
    """The scripts, one of their files with the mutant's text in place of its own."""
    folder = lua.folder()
    texts = {path.stem: path.read_text() for path in folder.glob("*.lua")}
    assert texts[mutant.script].count(mutant.text) == 1
    texts[mutant.script] = texts[mutant.script].replace(mutant.text, mutant.instead)
    return lua.Scripts(**{name: lua._script(name, texts["account"] + texts[name]) for name in lua.NAMES})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.breaks)
def test_a_mutant_breaks_a_promise_that_the_scripts_keep(embedded: EmbeddedStore, mutant: Mutant) -> None:
    server = redis.Redis.from_url(embedded.url)
    server.flushall()
    mutant.check(Calls(server))
    server.flushall()
    calls = Calls(server, mutated(mutant))
    with pytest.raises(AssertionError):
        mutant.check(calls)
    server.close()


def test_no_two_mutants_are_the_same() -> None:
    assert len({(mutant.script, mutant.text, mutant.instead) for mutant in MUTANTS}) == len(MUTANTS) >= FEWEST
