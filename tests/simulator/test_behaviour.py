import pytest

from service.domain.errors import InvalidRequest
from service.simulator.behaviour import Behaviour, asked

USUAL = Behaviour(latency=0.5)


def words(text: str) -> Behaviour:
    """The behaviour asked for in the header, which is the same as asked for by the model's name."""
    by_header = asked(USUAL, header=text, tokens="", model="gpt-4o")
    by_name = asked(USUAL, header="", tokens="", model="simulated-" + text.replace("=", "-"))
    assert by_header == by_name
    return by_header


def test_who_asks_for_nothing_gets_the_usual() -> None:
    assert asked(USUAL, header="", tokens="", model="gpt-4o") is USUAL
    assert asked(USUAL, header="", tokens="", model="simulated") is USUAL


@pytest.mark.parametrize(
    ("text", "behaviour"),
    [
        ("status=503", Behaviour(latency=0.5, status=503)),
        ("cut=5", Behaviour(latency=0.5, cut=5)),
        ("end=0", Behaviour(latency=0.5, end=0)),
        ("stall=3", Behaviour(latency=0.5, stall=3)),
        ("stall-head", Behaviour(latency=0.5, stall_head=True)),
        ("malformed", Behaviour(latency=0.5, malformed=True)),
        ("no-usage", Behaviour(latency=0.5, no_usage=True)),
        ("usage=bad", Behaviour(latency=0.5, usage_bad=True)),
        ("close", Behaviour(latency=0.5, close=True)),
        ("fast", Behaviour(latency=0.5, fast=True)),
        ("latency=0.2", Behaviour(latency=0.2)),
        ("latency=0, rate=50, cut=2", Behaviour(rate=50, cut=2)),
    ],
)
def test_each_word_asks_for_one_thing(text: str, behaviour: Behaviour) -> None:
    assert words(text) == behaviour


@pytest.mark.parametrize("text", ["dance", "cut", "close=1", "cut=x", "", " ", "=", "cut=-1", "status=bad"])
def test_an_unknown_word_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"Known: status=N, cut=N, .*, usage-bad, close, fast\."):
        asked(USUAL, header=f"cut=1,{text}", tokens="", model="gpt-4o")


@pytest.mark.parametrize("text", ["status=200", "status=600", "status=4.5", "tokens=100001", "latency=3601"])
def test_a_number_out_of_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{text}' is not between"):
        asked(USUAL, header=text, tokens="", model="gpt-4o")


def test_the_length_has_a_header_of_its_own() -> None:
    assert asked(USUAL, header="", tokens="7", model="gpt-4o").tokens == 7
    with pytest.raises(InvalidRequest):
        asked(USUAL, header="", tokens="many", model="gpt-4o")
