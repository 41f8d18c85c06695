import json
from typing import Any

import pytest

from service.domain.tokens import Tokenizer

HELLO = [{"role": "user", "content": "hello"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Any:
    def prompt(*messages: object, model: str = "gpt-4o", **more: object) -> int:
        return tokenizer.prompt({"messages": list(messages), **more}, model).tokens

    return prompt


@pytest.fixture
def cost(prompt: Any) -> Any:
    """What a part of a user's message adds to it."""

    def cost(*parts: object, model: str = "gpt-4o") -> int:
        with_parts = prompt({"role": "user", "content": list(parts)}, model=model)
        return int(with_parts - prompt({"role": "user", "content": []}, model=model))

    return cost


def test_a_message_costs_three_its_role_and_its_text(prompt: Any) -> None:
    """openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb; and three for the reply."""
    assert prompt({"role": "user", "content": "hello"}) == 3 + 3 + 1 + 1
    assert prompt(*HELLO, *HELLO) == 3 + 2 * (3 + 1 + 1)
    assert prompt({"role": "user", "content": "hello", "name": "hello"}) == 8 + 2


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_every_role_is_one_token(tokenizer: Tokenizer, prompt: Any, role: str) -> None:
    assert tokenizer.count(role, "gpt-4o") == tokenizer.count(role, "gpt-4") == 1
    assert prompt({"role": role, "content": "hello"}) == 8


@pytest.mark.parametrize(
    ("model", "exact"),
    [("gpt-4o", True), ("ft:gpt-4.1-mini:weir::a", True), ("gpt-4-0613", True), ("llama-3", False)],
)
def test_a_model_that_nobody_knows_is_not_counted_exactly(
    tokenizer: Tokenizer, model: str, exact: bool
) -> None:
    assert tokenizer.prompt({"messages": HELLO}, model).exact == exact


def test_a_role_that_nobody_knows_costs_its_name(prompt: Any) -> None:
    assert prompt({"role": "hello world", "content": "hello"}) == 8 + 2
    assert prompt({"role": ["user"], "content": "hello"}) == 8 + 1
    assert prompt({"role": [["hello"]], "name": {"hello": 1}, "content": "hello"}) > 8 + 2


def test_a_text_in_parts_costs_what_it_costs_in_one(cost: Any) -> None:
    assert cost({"type": "text", "text": "hello world"}) == 2
    assert cost({"type": "text", "text": "hello"}, {"type": "text", "text": " world"}) == 2
    assert cost({"type": "refusal", "refusal": "hello world"}) == 2


def test_an_unknown_part_costs_its_strings_and_is_not_exact(tokenizer: Tokenizer, cost: Any) -> None:
    part = {"type": "poem", "lines": ["hello world", {"n": 1}]}
    assert cost(part) > 3
    assert not tokenizer.prompt({"messages": [{"role": "user", "content": [part]}]}, "gpt-4o").exact


@pytest.mark.parametrize(("part", "tokens"), [(12345, 2), ("hello world", 4), (None, 1)])
def test_a_part_that_is_no_object_is_counted_as_the_json_it_is(cost: Any, part: object, tokens: int) -> None:
    assert cost(part) == tokens


def test_content_that_is_neither_text_nor_parts_is_counted_as_the_json_it_is(prompt: Any) -> None:
    nothing = prompt({"role": "user", "content": None})
    assert prompt({"role": "user", "content": {"hello": "world"}}) > nothing + 4
    assert prompt({"role": "user"}) == nothing


def test_what_a_dialect_adds_to_a_message_is_counted(prompt: Any) -> None:
    plain = {"role": "assistant", "content": "4"}
    assert prompt(plain | {"reasoning_content": "two and two is four"}) == prompt(plain) + 5
    assert prompt({"role": "assistant", "refusal": "hello"}) == prompt({"role": "assistant"}) + 1


def test_definitions_part_from_the_first_system_message_by_a_line_break(prompt: Any) -> None:
    system, again = ({"role": "system", "content": text} for text in ("hello", "hello:"))
    alone = prompt(*HELLO, tools=[LOOK]) - prompt(*HELLO)
    assert prompt(system, *HELLO, tools=[LOOK]) - prompt(system, *HELLO) == alone - 4 + 1
    assert prompt(again, *HELLO, tools=[LOOK]) - prompt(again, *HELLO) == alone - 4  # ":\n" is one token
    assert prompt(again, system, tools=[LOOK]) - prompt(again, system) == alone - 4
    parts = {"role": "system", "content": [{"type": "text", "text": "hello"}]}
    assert prompt(parts, *HELLO, tools=[LOOK]) == prompt(system, *HELLO, tools=[LOOK])


@pytest.mark.parametrize(("choice", "more"), [("auto", 0), ("required", 0), ("none", 1), (LOOK, 8), (3, 0)])
def test_to_say_which_tool_is_to_be_called_costs(prompt: Any, choice: object, more: int) -> None:
    assert prompt(*HELLO, tools=[LOOK], tool_choice=choice) == prompt(*HELLO, tools=[LOOK]) + more


def test_newer_models_are_told_for_free(prompt: Any) -> None:
    """pydantic-ai, recorded exchanges of gpt-5-mini."""
    free = prompt(*HELLO, tools=[LOOK], model="gpt-5-mini")
    assert prompt(*HELLO, tools=[LOOK], tool_choice=LOOK, model="gpt-5-mini") == free


def test_a_choice_without_tools_costs_nothing(prompt: Any) -> None:
    assert prompt(*HELLO, tool_choice=LOOK, function_call={"name": "look"}) == prompt(*HELLO)


def test_a_custom_tool_costs_its_text_and_is_not_exact(tokenizer: Tokenizer, prompt: Any) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: " + "word " * 50}}
    tool = {"type": "custom", "custom": {"name": "sql", "format": grammar}}
    assert prompt(*HELLO, tools=[tool]) > prompt(*HELLO) + 50
    assert not tokenizer.prompt({"messages": HELLO, "tools": [tool]}, "gpt-4o").exact


def test_a_format_that_is_no_schema_costs_nothing(prompt: Any) -> None:
    for shape in ({"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}, 7, None):
        assert prompt(*HELLO, response_format=shape) == prompt(*HELLO)


def test_the_name_of_a_format_is_counted_twice(prompt: Any) -> None:
    def named(name: str) -> int:
        wanted = {"name": name, "schema": {"type": "object"}}
        return int(prompt(*HELLO, response_format={"type": "json_schema", "json_schema": wanted}))

    assert named("river bed") - named("river") == 2


def test_the_parts_say_what_costs_how_much(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hello world", "name": "ada"}]
    parts = tokenizer.prompt({"messages": messages, "tools": [LOOK]}, "gpt-4o").parts
    assert parts["text"] == 2
    assert parts["framing"] == 3 + 3 + 1
    assert parts["names"] == 1 + tokenizer.count("ada", "gpt-4o")
    assert parts["tools"] == 9 + tokenizer.count(
        "namespace functions {\n\ntype look = () => any;\n\n} // namespace functions", "gpt-4o"
    )


LONG = "the water " * 100
# Where a text may stand so that a provider could read it.
HIDDEN = (
    '[{"role": ?}]',
    '[{"role": "user", "name": ?}]',
    '[{"role": "user", "name": [?]}]',
    '[{"role": "user", "content": {"a": ?}}]',
    '[{"role": "user", "content": [?]}]',
    '[{"role": "user", "content": [[?]]}]',
    '[{"role": "user", "content": [{"type": "text", "text": "", "more": ?}]}]',
    '[{"role": "user", "content": [{"type": "text", "text": [?]}]}]',
    '[{"role": "user", "content": [{"type": "poem", "poem": {"a": [?]}}]}]',
    '[{"role": "user", "content": "", "tool_calls": [?]}]',
    '[{"role": "user", "content": "", "function_call": {"name": ?}}]',
    '[{"role": "assistant", "refusal": [?]}]',
    '[{"role": "assistant", "reasoning_details": [{"text": ?}]}]',
    '[{"role": "assistant", "tool_calls": ?}]',
    '[{"role": "assistant", "tool_calls": [?]}]',
    '[{"role": "assistant", "tool_calls": [{"type": "other", "other": {"a": ?}}]}]',
    '[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": ?}}}]}]',
    '[{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}], "function_call": {"name": ?}}]',
    '[{"role": "assistant", "tool_calls": [{}, ?]}]',
    '[{"role": "assistant", "tool_calls": [{}, {"custom": {"name": "a", "input": ?}, "type": "custom"}]}]',
    '[{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "tool", "content": ?}]',
    '[{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "tool", "content": {"a": ?}}]',
    '[{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "tool", "content": [{"type": "x", "x": ?}]}]',
    '[{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "tool", "content": "", "more": ?}]',
    '[{"role": "assistant", "tool_calls": [{}, {}]}, {"role": "user"}, {"role": "tool", "content": ?}]',
    '[{"role": "function", "name": ?, "content": ""}]',
)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-3.5-turbo-0613", "gpt-5"])
@pytest.mark.parametrize("place", HIDDEN)
def test_a_text_counts_wherever_it_stands(tokenizer: Tokenizer, place: str, model: str) -> None:
    messages = json.loads(place.replace("?", json.dumps(LONG)))
    assert tokenizer.prompt({"messages": messages}, model).tokens > 200


@pytest.mark.parametrize(
    "schema",
    [
        '{"properties": {"a": {"examples": [?]}}}',
        '{"properties": {"a": {"const": ?}}}',
        '{"properties": {"a": {"pattern": ?, "type": "string"}}}',
        '{"properties": {"a": {"allOf": [{"description": ?}]}}}',
        '{"properties": {"a": {"anyOf": [], "x": ?}}}',
        '{"properties": {"a": {"items": {"examples": [?]}, "type": "array"}}}',
        '{"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"description": ?}}}}}',
        '{"anyOf": [{"properties": {"a": {"description": ?}}}]}',
        '{"examples": [?]}',
        '{"properties": {"a": {"type": "object", "patternProperties": {"b": {"description": ?}}}}}',
    ],
)
def test_a_text_counts_wherever_a_schema_has_it(tokenizer: Tokenizer, schema: str) -> None:
    function = {"name": "f", "parameters": json.loads(schema.replace("?", json.dumps(LONG)))}
    request = {"messages": [], "tools": [{"type": "function", "function": function}]}
    assert tokenizer.prompt(request, "gpt-4o").tokens > 200
    wanted = {"type": "json_schema", "json_schema": {"name": "f", "schema": function["parameters"]}}
    assert tokenizer.prompt({"messages": [], "response_format": wanted}, "gpt-4o").tokens > 200


@pytest.mark.parametrize(
    "hides", [f'{{"a": "{LONG}", "a": 1}}', f'{{"a": {" " * 900}1}}', f'{{"a":0.{"1" * 500}}}']
)
def test_arguments_that_say_less_when_they_are_read_count_as_they_stand(
    tokenizer: Tokenizer, hides: str
) -> None:
    for calls in (1, 2):
        made = [{"type": "function", "function": {"name": "f", "arguments": hides}}] * calls
        answers = [{"role": "tool", "content": hides}] * calls
        messages = [{"role": "assistant", "tool_calls": made}, *answers]
        assert tokenizer.prompt({"messages": messages}, "gpt-4o").tokens > calls * 2 * 10
        one = tokenizer.count(hides, "gpt-4o")
        assert tokenizer.prompt({"messages": messages}, "gpt-4o").tokens >= calls * 2 * one
