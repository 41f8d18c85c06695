from typing import Any

import pytest

from service.domain.tokens import Tokenizer

Message = dict[str, Any]


def message(role: str, content: str, name: str | None = None) -> Message:
    return {"role": role, "content": content} | ({"name": name} if name else {})


# openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, cell 15, and its reported counts.
JARGON = [
    message(
        "system",
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    message("system", "New synergies will help drive top-line growth.", "example_user"),
    message("system", "Things working well together will increase revenue.", "example_assistant"),
    message(
        "system",
        "Let's circle back when we have more bandwidth "
        "to touch base on opportunities for increased leverage.",
        "example_user",
    ),
    message("system", "Let's talk later when we're less busy about how to do better.", "example_assistant"),
    message(
        "user",
        "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    ),
]
ROBOTS = [
    message("system", "# Important: you're the best robot"),
    message("user", "hello robot"),
    message("assistant", "hello world"),
]
HELLO = [message("user", "hello")]
STUFF = [message("system", "Hello:"), message("system", "Hello"), message("user", "Hi there")]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-3.5-turbo", 129),
        ("gpt-3.5-turbo-0301", 127),
        ("gpt-3.5-turbo-0613", 129),
        ("gpt-4-0314", 129),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
    ],
)
def test_the_cookbooks_messages_cost_what_the_api_reported(
    tokenizer: Tokenizer, model: str, tokens: int
) -> None:
    assert tokenizer.prompt({"messages": JARGON}, model) == tokens


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        ([JARGON[0]], 25),
        ([JARGON[1]], 20),
        ([JARGON[2]], 19),
        ([JARGON[3]], 28),
        ([JARGON[4]], 26),
        ([JARGON[5]], 26),
        (HELLO, 8),
        ([message("user", "hello world")], 9),
        ([message("system", "hello:")], 9),
        (ROBOTS, 27),
        ([message("user", "hello world"), message("function", "{}", "do_stuff")], 15),
        ([message("function", '{"a": { "b" : { "c": false}}}', "dance_the_tango")], 24),
    ],
)
def test_messages_cost_what_the_api_reported(
    tokenizer: Tokenizer, messages: list[Message], tokens: int
) -> None:
    """hmarr/openai-chat-tokens, tests/token-counts.test.ts, cases 0 to 21."""
    assert tokenizer.prompt({"messages": messages}, "gpt-3.5-turbo") == tokens


def function(name: str, description: str | None = None, /, **properties: object) -> dict[str, Any]:
    definition = {"name": name, "parameters": {"type": "object", "properties": properties}}
    return definition | ({"description": description} if description else {})


FOO = [function("foo")]
TEXT = {"type": "string"}
BAR = {
    "type": "object",
    "properties": {"bar": {"type": "string", "enum": ["a", "b", "c"]}, "baz": {"type": "boolean"}},
}
EITHER = {"anyOf": [{"type": "string", "const": "a"}, {"type": "number"}]}


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        ({"messages": HELLO, "functions": FOO}, 31),
        ({"messages": HELLO, "functions": FOO, "function_call": "none"}, 32),
        ({"messages": HELLO, "functions": FOO, "function_call": "auto"}, 31),
        ({"messages": HELLO, "functions": FOO, "function_call": {"name": "foo"}}, 36),
        ({"messages": HELLO, "functions": [function("foo", "Do a foo")]}, 36),
        ({"messages": HELLO, "functions": [function("bing_bong", "Do a bing bong", foo=TEXT)]}, 49),
        ({"messages": HELLO, "functions": [function("bing_bong", "Do a bing bong", foo=BAR)]}, 68),
        ({"messages": STUFF[1:], "functions": [function("do_stuff", foo=EITHER)]}, 44),
        ({"messages": STUFF, "functions": [function("do_stuff"), function("do_other_stuff")]}, 49),
    ],
)  # fmt: skip
def test_functions_cost_what_the_api_reported(
    tokenizer: Tokenizer, request_: dict[str, Any], tokens: int
) -> None:
    """hmarr/openai-chat-tokens, tests/token-counts.test.ts, cases 11 to 31."""
    assert tokenizer.prompt(request_, "gpt-3.5-turbo") == tokens


@pytest.mark.parametrize(("model", "tokens"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101)])
def test_the_cookbooks_tool_costs_what_the_api_reported(
    tokenizer: Tokenizer, model: str, tokens: int
) -> None:
    """openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, cell 17."""
    tool = function(
        "get_current_weather",
        "Get the current weather in a given location",
        location={"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        unit={
            "type": "string",
            "description": "The unit of temperature to return",
            "enum": ["celsius", "fahrenheit"],
        },
    )
    tool["parameters"]["required"] = ["location"]
    messages = [
        message("system", "You are a helpful assistant that can answer to questions about the weather."),
        message("user", "What's the weather like in San Francisco?"),
    ]
    request = {"messages": messages, "tools": [{"type": "function", "function": tool}]}
    assert tokenizer.prompt(request, model) == tokens


def test_the_schema_of_an_answer_costs_what_the_api_reported(tokenizer: Tokenizer) -> None:
    """openai/openai-python, tests/lib/chat/test_completions.py, test_parse_pydantic_model."""
    schema = {
        "properties": {
            "city": {"title": "City", "type": "string"},
            "temperature": {"title": "Temperature", "type": "number"},
            "units": {"enum": ["c", "f"], "title": "Units", "type": "string"},
        },
        "required": ["city", "temperature", "units"],
        "title": "Location",
        "type": "object",
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"schema": schema, "name": "Location", "strict": True}}
    request = {"messages": [message("user", "What's the weather like in SF?")], "response_format": wanted}
    assert tokenizer.prompt(request, "gpt-4o-2024-08-06") == 79


def cost(tokenizer: Tokenizer, part: object, model: str = "gpt-4o") -> int:
    with_part = tokenizer.prompt({"messages": [{"role": "user", "content": [part]}]}, model)
    return with_part - tokenizer.prompt({"messages": [{"role": "user", "content": []}]}, model)


def test_a_text_in_parts_costs_what_it_costs_in_one(tokenizer: Tokenizer) -> None:
    assert cost(tokenizer, {"type": "text", "text": "hello world"}) == 2
    assert cost(tokenizer, {"type": "refusal", "refusal": "hello world"}) == 2


def test_an_image_costs_its_worst_case_by_detail_and_never_its_bytes(tokenizer: Tokenizer) -> None:
    url = "data:image/png;base64," + "A" * 100_000
    assert cost(tokenizer, {"type": "image_url", "image_url": {"url": url}}) == 1445
    assert cost(tokenizer, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}) == 85
    assert cost(tokenizer, {"type": "image_url", "image_url": url}, "gpt-4o-mini") == 48169


def test_sound_and_files_cost_a_constant(tokenizer: Tokenizer) -> None:
    assert (
        cost(tokenizer, {"type": "input_audio", "input_audio": {"data": "A" * 9000, "format": "mp3"}}) == 1200
    )
    assert cost(tokenizer, {"type": "file", "file": {"file_id": "file-1"}}) == 4096


def test_an_unknown_part_costs_its_strings(tokenizer: Tokenizer) -> None:
    assert cost(tokenizer, {"type": "poem", "lines": ["hello world", {"n": 1}]}) > 4
    assert cost(tokenizer, "hello world") > 1


def test_the_calls_of_an_assistant_are_part_of_the_prompt(tokenizer: Tokenizer) -> None:
    def call(name: str) -> dict[str, Any]:
        return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"a":1}'}}

    def prompt(*calls: object) -> int:
        assistant = {"role": "assistant", "content": None, "tool_calls": list(calls)}
        return tokenizer.prompt({"messages": [assistant]}, "gpt-4o")

    one = prompt(call("look")) - prompt()
    assert one == 3 + tokenizer.count("look", "gpt-4o") + tokenizer.count('{"a":1}', "gpt-4o")
    assert prompt(call("look"), call("look")) - prompt() == 2 * one + 10
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "look", "input": '{"a":1}'}}
    assert prompt(custom) - prompt() == one


def test_the_answer_of_a_tool_costs_two_more_and_its_ids_nothing(tokenizer: Tokenizer) -> None:
    tool = {"role": "tool", "content": "22", "tool_call_id": "call_" + "x" * 99, "name": "unread"}
    plain = {"role": "user", "content": "22"}
    assert tokenizer.prompt({"messages": [tool]}, "gpt-4o") == 2 + tokenizer.prompt(
        {"messages": [plain]}, "gpt-4o"
    )


def test_what_a_dialect_adds_to_a_message_is_counted(tokenizer: Tokenizer) -> None:
    thinking = {"role": "assistant", "content": "4", "reasoning_content": "two and two is four"}
    plain = {"role": "assistant", "content": "4"}
    assert tokenizer.prompt({"messages": [thinking]}, "x") > tokenizer.prompt({"messages": [plain]}, "x") + 4


def test_naming_the_tool_to_call_costs_seven_and_its_name(tokenizer: Tokenizer) -> None:
    request = {"messages": HELLO, "tools": [{"type": "function", "function": function("foo")}]}
    auto = tokenizer.prompt(request | {"tool_choice": "auto"}, "gpt-4o")
    named = {"type": "function", "function": {"name": "foo"}}
    assert tokenizer.prompt(request | {"tool_choice": named}, "gpt-4o") == auto + 8
    assert tokenizer.prompt(request | {"tool_choice": "none"}, "gpt-4o") == auto + 1


def test_a_custom_tool_costs_its_text(tokenizer: Tokenizer) -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: " + "word " * 50}}
    tool = {"type": "custom", "custom": {"name": "sql", "format": grammar}}
    with_tool = tokenizer.prompt({"messages": HELLO, "tools": [tool]}, "gpt-4o")
    assert with_tool > tokenizer.prompt({"messages": HELLO}, "gpt-4o") + 50


def test_a_part_that_is_no_object_is_counted_as_the_json_it_is(tokenizer: Tokenizer) -> None:
    assert cost(tokenizer, 12345) == tokenizer.count("12345", "gpt-4o")
