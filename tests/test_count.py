"""weir count: what a body counts is told part by part, and how far counts lie from what the API reported."""

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from service import app
from service.count.comparison import Comparison
from service.count.spread import Case, Spread
from service.domain.tokens.encodings import Encode, build
from service.domain.tokens.families import Family
from service.domain.tokens.work import PIECES
from tests.commands import Said, ask_command, forget_settings
from tests.programs import definition

KNOWN = Path(__file__).parent / "count" / "known.jsonl"
HELLO = {"role": "user", "content": "hello"}  # 3 around it, 1 of role, 1 of text; 3 begin the reply
HELLO_COUNTS = 8
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASKED = {"name": "weather", "arguments": '{"city":"Oslo"}'}
CALL = {"id": "c1", "type": "function", "function": ASKED}
TALK: list[dict[str, object]] = [
    {"role": "system", "content": "You know the weather."},
    {"role": "user", "content": "How is it in Oslo?", "name": "ada"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
]


class Operator:
    """Asks `weir count`, and writes the files that it is asked about."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self._folder = folder

    def __call__(self, *words: str) -> Said:
        return ask_command(self._capsys, "count", *words)

    def file(self, text: str) -> str:
        file = self._folder / "file"
        file.write_text(text)
        return str(file)

    def body(self, *messages: object, model: str = "gpt-4o", **members: object) -> str:
        return self.file(json.dumps({"model": model, "messages": messages, **members}))

    def lines(self, *lines: object) -> str:
        return self.file("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))


@pytest.fixture(scope="module")
def building() -> Callable[[str, bytes], Encode]:
    """Building encodings as ever, but each once for all commands of these tests."""
    built: dict[str, Encode] = {}
    return lambda name, packed: built.get(name) or built.setdefault(name, build(name, packed))


@pytest.fixture
def count(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    building: Callable[[str, bytes], Encode],
) -> Operator:
    forget_settings(monkeypatch)
    monkeypatch.setattr(app, "build_encoding", building)
    return Operator(capsys, tmp_path)


def known(reported: object, model: str = "gpt-4o", **beside: object) -> dict[str, object]:
    """A line of a body that counts HELLO_COUNTS."""
    return {"request": {"model": model, "messages": [HELLO]}, "usage": {"prompt_tokens": reported}, **beside}


# -- one body --------------------------------------------------------------------------------------------


def test_a_body_is_told_part_by_part(count: Operator) -> None:
    said = count(count.body(HELLO))
    assert (said.code, said.complaints) == (0, "")
    first, source = said.text.splitlines()[:2]
    assert first == "gpt-4o: o200k_base"
    assert source.startswith("  image (base 85, tile 170): OpenAI documentation")
    assert said.row("framing") == ["7"]
    assert said.row("text") == ["1"]
    assert said.row("total") == [str(HELLO_COUNTS)]
    assert "\ntools" not in said.text
    assert "\nexact; at most 12, were each byte a token\n" in said.text
    assert said.row("0", "user") == ["5", "hello"]
    assert said.row("rest") == ["3"]


def test_programs_read_the_same(count: Operator) -> None:
    told = count(count.body(HELLO), "--json").json
    family, sources = told.pop("family"), told.pop("sources")
    assert sources[0]["what"]["image"] == {"base": 85, "tile": 170}
    assert (family["encoding"], family["per_message"], family["reply"]) == ("o200k_base", 3, 3)
    assert told == {
        "model": "gpt-4o",
        "definition": {},
        "parts": {"framing": 7, "text": 1},
        "tokens": HELLO_COUNTS,
        "exact": True,
        "at_most": 12,
        "bounded_characters": 0,
        "messages": [{"role": "user", "tokens": 5, "text": "hello"}],
        "rest": 3,
    }


def test_stdin_is_read_where_a_dash_is_named(count: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": [HELLO]}).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body)))
    assert count("-", "--json").json["tokens"] == HELLO_COUNTS


def test_another_model_may_be_named_and_one_must_be(count: Operator) -> None:
    file = count.body(HELLO)
    assert count(file, "--model", "gpt-4", "--json").json["family"]["encoding"] == "cl100k_base"
    bare = count.file(json.dumps({"messages": [HELLO]}))
    assert count(bare, "--model", "gpt-4o", "--json").json["tokens"] == HELLO_COUNTS
    said = count(bare)
    assert (said.code, said.text) == (2, "")
    assert said.complaints == f"{bare}: you must provide a model parameter\n"


@pytest.mark.parametrize("tools", [(), (WEATHER,)])
def test_messages_and_the_rest_are_the_whole(count: Operator, tools: Sequence[object]) -> None:
    told = count(count.body(*TALK, functions=list(tools)), "--json").json
    assert [message["role"] for message in told["messages"]] == ["system", "user", "assistant", "tool"]
    assert all(message["tokens"] > 3 for message in told["messages"])
    assert sum(message["tokens"] for message in told["messages"]) + told["rest"] == told["tokens"]
    assert (told["rest"] == 3) is not bool(tools)


def test_an_answer_of_a_tool_counts_with_the_name_of_its_call(count: Operator) -> None:
    long = {**CALL, "function": {**ASKED, "name": "the_weather_of_all_the_cities"}}
    short, longer = (
        count(count.body({**TALK[2], "tool_calls": [call]}, TALK[3]), "--json").json["messages"]
        for call in (CALL, long)
    )
    assert longer[1]["tokens"] > short[1]["tokens"]


def test_what_others_wrote_does_not_reach_the_terminal_as_it_is(count: Operator) -> None:
    said = count(
        count.body({"role": "us\ner", "content": "\x1b[2Jgone\u202e" + "x" * 100}, "\n", model="gpt-4o\x07")
    )
    assert said.code == 0
    assert said.text.startswith("gpt-4o\\x07: ")
    assert said.row("0", "us\\ner")[1] == "\\x1b[2Jgone\\u202e" + "x" * 51 + "…"
    assert said.row("1", "-")[1] == "\\n"
    assert all(character.isprintable() for character in said.text.replace("\n", ""))


def test_images_are_said_not_to_be_exact(count: Operator) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    said = count(count.body({"role": "user", "content": [image]}))
    assert "\nnot exact; " in said.text
    assert int(said.row("images")[0]) > 0
    assert "image_url" in said.row("0", "user")[1]


def test_what_the_budget_does_not_reach_is_said(count: Operator) -> None:
    file = count.body(*[HELLO] * (PIECES + 10))
    told = count(file, "--json").json
    assert told["bounded_characters"] >= 50
    assert not told["exact"]
    assert told["tokens"] <= told["at_most"]
    assert told["rest"] is None
    said = count(file)
    assert "characters were, as the budget was spent" in said.text
    assert "\n   rest" not in said.text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "We could not parse the JSON body of your request: Expecting property name"),
        ('{"a": 1, "a": 2}', "We could not parse the JSON body of your request: duplicate member 'a'"),
        ("[]", "We could not parse the JSON body of your request: not an object"),
        ('{"model": 3}', "Invalid type for 'model': expected a string, but got an integer instead."),
        ('{"model": "m", "n": 0}', "Invalid 'n': integer below minimum value."),
    ],
)
def test_a_body_that_the_gateway_refuses_is_refused_in_its_words(
    count: Operator, text: str, complaint: str
) -> None:
    file = count.file(text)
    said = count(file)
    assert (said.code, said.text) == (2, "")
    assert said.complaints.startswith(f"{file}: {complaint}")
    if '"model": 3' not in text:
        assert count(file, "--model", "gpt-4o").code == 2


def test_a_file_that_is_not_there_is_told(count: Operator, tmp_path: Path) -> None:
    for words in ([str(tmp_path / "no")], ["--against", str(tmp_path / "no")]):
        said = count(*words)
        assert (said.code, said.text) == (2, "")
        assert str(tmp_path / "no") in said.complaints


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["body.json", "--against", "known.jsonl"],
        ["body.json", "--worst", "3"],
        ["--against", "known.jsonl", "--worst", "1001"],
        ["--against", "known.jsonl", "--worst", "-1"],
        ["body.json", "--model", ""],
    ],
)
def test_what_cannot_be_meant_is_wrongly_asked(count: Operator, words: list[str]) -> None:
    said = count(*words)
    assert (said.code, said.text) == (2, "")
    assert "expected" in said.complaints or "required" in said.complaints or "not allowed" in said.complaints


def test_what_the_definition_says_of_counting_counts_and_is_told(count: Operator, tmp_path: Path) -> None:
    counting = {"llama-*": {"bytes-per-token": 2.5, "margin": "50%"}, "*": {"like": "gpt-4"}}
    words = ["--definition", str(definition(tmp_path, counting=counting))]
    rough = count(count.body(HELLO, model="llama-4"), "--json", *words).json
    assert rough["parts"] == {"framing": 7, "text": 2, "margin": 5}
    assert (rough["tokens"], rough["rest"]) == (14, 3 + 5)
    assert rough["family"]["encoding"] is None
    assert rough["definition"] == {"llama-*": {"bytes-per-token": 2.5, "margin": 50}}
    file = count.body(HELLO, model="own")
    assert count(file, *words).text.splitlines()[:2] == [
        "own: cl100k_base",
        "  encoding cl100k_base: tiktoken/model.py",
    ]
    assert "\ndefinition, *: like gpt-4\n" in count(file, *words).text
    assert count(file, "--json", *words).json["family"]["encoding"] == "cl100k_base"
    told = count("--against", count.lines(known(14, model="llama-4")), "--json", *words).json
    assert told["all"]["exact"] == 100


def test_a_bad_definition_is_told(count: Operator, tmp_path: Path) -> None:
    definition = tmp_path / "definition.yaml"
    definition.write_text("openapi: 3.1.0\n")
    said = count(count.body(HELLO), "--definition", str(definition))
    assert (said.code, said.text) == (1, "")
    assert said.complaints.startswith(f"{definition}:1:1: ")


# -- against what was reported ---------------------------------------------------------------------------


def test_bodies_are_compared_in_each_form_they_come_in(count: Operator) -> None:
    told = count("--against", str(KNOWN), "--json").json
    assert (told["compared"], told["skipped"], told["bounded"]) == (5, 1, 0)
    assert {name: figures["n"] for name, figures in told["categories"].items()} == {
        "messages": 3,
        "tools": 1,
        "function-messages": 1,
    }
    assert told["categories"]["messages"]["exact"] == 100
    assert [family["models"] for family in told["families"]] == [
        ["gpt-3.5-turbo"],
        ["gpt-4o"],
        ["gpt-3.5-turbo-0301"],
    ]


def test_people_read_tables_and_how_to_read_them(count: Operator) -> None:
    said = count(
        "--against",
        count.lines(
            known(HELLO_COUNTS, category="good"),
            "",
            known(HELLO_COUNTS + 2, category="bad", id="low"),
            known(HELLO_COUNTS - 3, model="gpt-4", id=7),
            known(None),
        ),
    )
    assert (said.code, said.complaints) == (0, "")
    assert said.text.startswith("compared 3 bodies, skipped 1 without a known number\n")
    #                            n   exact    within   off      bias      under over p5  p50 p95
    assert said.row("all") == ["3", "33.3%", "33.3%", "26.67%", "+4.35%", "-2", "+3", "-2", "0", "+3"]
    assert said.row("category", "good")[:2] == ["1", "100.0%"]
    assert said.row("category", "-")[0] == "1"
    assert said.row("family", "gpt-4o")[0] == "2"
    assert said.row("4", "7") == ["-", "gpt-4", "8", "5", "+3", "+60.0%"]
    assert said.row("3", "low") == ["bad", "gpt-4o", "8", "10", "-2", "-20.0%"]
    assert "estimate − reported" in said.text


def test_the_worst_are_so_many_as_were_asked_for_the_furthest_first(count: Operator) -> None:
    off = (1, -4, 0, 3, -2, 4)
    file = count.lines(*(known(HELLO_COUNTS - error, id=f"off {error}") for error in off))
    for asked, ids in ((0, []), (3, ["off 4", "off -4", "off 3"]), (10, None)):
        worst = count("--against", file, "--json", "--worst", str(asked)).json["worst"]
        assert [case["id"] for case in worst] == (
            ids if ids is not None else ["off 4", "off -4", "off 3", "off -2", "off 1"]
        )
    assert count("--against", file, "--json", "--worst", "1").json["worst"] == [
        {
            "line": 6,
            "id": "off 4",
            "category": "",
            "model": "gpt-4o",
            "reported": 4,
            "estimate": 8,
            "error": 4,
        }
    ]


def test_every_line_that_is_not_as_it_should_be_is_told(count: Operator) -> None:
    number = "a whole number from 1 to 100000000, or null"
    body = {"model": "gpt-4o", "messages": [HELLO]}
    wrong: list[tuple[object, str]] = [
        ("{", "expected a JSON object: Expecting property name"),
        ("[1]", "expected a JSON object\n"),
        (body, f"expected usage.prompt_tokens: {number}\n"),
        (known("8"), f"usage.prompt_tokens: expected {number}\n"),
        (known(True), f"usage.prompt_tokens: expected {number}\n"),
        (known(0), f"usage.prompt_tokens: expected {number}\n"),
        (known(10**400), f"usage.prompt_tokens: expected {number}\n"),
        ({**body, "usage": {}}, f"usage: expected an object with prompt_tokens, {number}\n"),
        ({**body, "usage": 8}, f"usage: expected an object with prompt_tokens, {number}\n"),
        ({**body, "expected_prompt_tokens": "?"}, f"expected_prompt_tokens: expected {number}\n"),
        ({"request": [], "prompt_tokens": 8}, "request: expected an object, the body of a request\n"),
        ({"request": {}, "prompt_tokens": 8}, "expected a body that the gateway takes: you must provide a"),
        (
            {"request": {**body, "n": 0}, "prompt_tokens": 8},
            "expected a body that the gateway takes: Invalid",
        ),
        (known(8, category=["a"]), "category: expected a string\n"),
        (known(8, id=1.5), "id: expected a string\n"),
    ]
    file = count.lines(known(8), *(line for line, _ in wrong), known(8), {**body, "usage": None})
    said = count("--against", file)
    assert (said.code, said.text) == (2, "")
    complaints = said.complaints.splitlines(keepends=True)
    assert len(complaints) == len(wrong)
    for number_of, (complaint, (_, expected)) in enumerate(zip(complaints, wrong, strict=True), 2):
        assert complaint.startswith(f"{file}:{number_of}: {expected}")


def test_where_no_number_is_known_nothing_is_compared(count: Operator) -> None:
    file = count.lines(known(None), {"usage": None})
    assert count("--against", file).text == "compared 0 bodies, skipped 2 without a known number\n"
    told = count("--against", file, "--json").json
    assert (told["compared"], told["skipped"], told["all"], told["worst"]) == (0, 2, None, [])


def test_a_model_that_is_named_counts_for_all(count: Operator) -> None:
    file = count.lines(known(8), {"request": {"messages": [HELLO]}, "prompt_tokens": 8})
    told = count("--against", file, "--model", "gpt-4", "--json").json
    assert [family["models"] for family in told["families"]] == [["gpt-4"]]
    assert count("--against", file).code == 2


def test_names_of_lines_do_not_reach_the_terminal_as_they_are(count: Operator) -> None:
    said = count("--against", count.lines(known(9, id="\x1b[2J", category="a\nb", model="gpt-4o\x07")))
    assert said.row("1", "\\x1b[2J", "a\\nb", "gpt-4o\\x07") == ["8", "9", "-1", "-11.1%"]
    assert said.row("category", "a\\nb")[0] == "1"


def test_bodies_that_were_not_all_counted_are_told(count: Operator) -> None:
    request = {"model": "gpt-4o", "messages": [HELLO] * (PIECES + 10)}
    said = count("--against", count.lines({"request": request, "prompt_tokens": PIECES}, known(8)))
    assert "; 1 of them were not all counted within the budget\n" in said.text


# -- the arithmetic --------------------------------------------------------------------------------------


def case(error: int, reported: int = 100, line: int = 1) -> Case:
    return Case(line, "", "", "gpt-4o", reported, reported + error)


def test_figures_are_those_that_one_finds_by_hand() -> None:
    spread = Spread()
    for error in (0, 0, 1, -2, 5):
        spread.add(case(error))
    spread.add(case(-8, reported=400))
    assert asdict(spread.figures()) == {
        "n": 6,
        "exact": pytest.approx(100 * 2 / 6),
        "within_1": 50,
        "off": pytest.approx((0 + 0 + 1 + 2 + 5 + 2) / 6),
        "bias": pytest.approx(100 * -4 / 900),
        "under": -8,
        "over": 5,
        "p5": -8,
        "p50": 0,
        "p95": 5,
    }


def test_a_quantile_is_the_least_error_that_so_many_do_not_exceed() -> None:
    spread = Spread()
    for error in range(1, 101):
        spread.add(case(error))
    figures = spread.figures()
    assert (figures.p5, figures.p50, figures.p95) == (5, 50, 95)
    assert (figures.under, figures.over) == (0, 100)


def test_of_the_worst_no_more_are_kept_than_are_shown() -> None:
    comparison = Comparison(2)
    for line, error in enumerate((1, 2, 2, -3, 1), 1):
        comparison.add(case(error, line=line), Family())
    assert [(one.error, one.line) for one in comparison.worst()] == [(-3, 4), (2, 2)]
