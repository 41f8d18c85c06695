from typing import Any

import pytest

from service.domain.tokens import Tokenizer

MODEL = "gpt-4o"


def call(name: str = "look", said: str = '{"a": 1}', id: str = "call_1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": said}}


def calling(*calls: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def answer(said: object, id: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "content": said, "tool_call_id": id}


@pytest.fixture
def count(tokenizer: Tokenizer) -> Any:
    return lambda text: tokenizer.count(text, MODEL)


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Any:
    return lambda *messages: tokenizer.prompt({"messages": list(messages)}, MODEL).tokens - 3


def test_a_call_costs_its_function_and_its_arguments_without_spaces(prompt: Any, count: Any) -> None:
    expected = 4 + 3 + count("functions.look") + count('{"a":1}')
    assert prompt(calling(call())) == expected
    assert prompt(calling(call(said='{"a":\n\n1}'))) == expected


def test_arguments_that_are_no_json_are_counted_as_they_stand(prompt: Any, count: Any) -> None:
    assert prompt(calling(call(said="a  1"))) == 4 + 3 + count("functions.look") + count("a  1")


def test_an_answer_costs_the_name_of_its_function_and_no_ids(prompt: Any, count: Any) -> None:
    called = prompt(calling(call()))
    assert prompt(calling(call()), answer("22")) - called == 3 + 2 + count("look") + 1
    long = "call_" + "x" * 99
    assert prompt(calling(call(id=long)), answer("22", id=long)) == prompt(calling(call()), answer("22"))


def test_an_answer_to_nobody_costs_its_text(prompt: Any) -> None:
    assert prompt(answer("22")) == 3 + 2 + 1
    assert prompt(answer("22", id={})) == 3 + 2 + 1  # type: ignore[arg-type]


def test_several_calls_are_one_and_are_answered_by_a_list(prompt: Any, count: Any) -> None:
    both = calling(call(id="a"), call("hear", "{}", id="b"))
    made = (
        '{"tool_uses":[{"recipient_name":"functions.look","parameters":{"a":1}},'
        '{"recipient_name":"functions.hear","parameters":{}}]}'
    )
    answers = answer('{"x":1}', id="a"), answer([{"type": "text", "text": "é"}], id="b")
    assert prompt(both, *answers) == 20 + count(made) + count('[{"x": 1}, "\\u00e9"]')


def test_answers_that_share_an_id_are_all_in_the_list(prompt: Any) -> None:
    both = calling(call(), call())
    assert prompt(both, answer("one"), answer("two")) > prompt(both, answer("one"))


def test_a_call_of_the_older_form_costs_the_same(prompt: Any) -> None:
    older = {"role": "assistant", "content": None, "function_call": call()["function"]}
    reply = {"role": "function", "name": "look", "content": "22"}
    assert prompt(older, reply) == prompt(calling(call()), answer("22"))


def test_a_custom_tool_is_called_with_its_input(prompt: Any) -> None:
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "look", "input": '{"a":1}'}}
    assert prompt(calling(custom)) == prompt(calling(call()))


@pytest.mark.parametrize(
    "calls", [7, "calls", [7, None], [{}], [{"function": 7}], [{"id": [], "function": {}}]]
)
def test_calls_that_are_none_do_no_harm(prompt: Any, calls: object) -> None:
    assert prompt({"role": "assistant", "content": "x", "tool_calls": calls}) >= 5


def test_what_the_assistant_says_without_a_call_costs_newer_models_two_more(tokenizer: Tokenizer) -> None:
    """ruby_llm, recorded exchanges of gpt-5-nano."""
    user, assistant = ({"role": role, "content": "x"} for role in ("user", "assistant"))
    prompts = [tokenizer.prompt({"messages": [one]}, "gpt-5-nano").tokens for one in (user, assistant)]
    assert prompts[1] - prompts[0] == 2
