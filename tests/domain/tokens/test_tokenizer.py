"""The tokenizer counts a conversation's past once, and believes nothing that a client calls its model."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.domain.tokens import Tokenizer
from service.domain.tokens.encodings import Encode
from service.domain.tokens.options import ModelOptions
from service.domain.tokens.work import SECONDS
from tests.domain.tokens.recorder import Clock, Recorder, encodings

SYSTEM = {"role": "system", "content": "You keep the weir, its gates and its books."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"gate_{serial}",
            "description": "Opens or closes a gate of the weir.",
            "parameters": {"type": "object", "properties": {"metres": {"type": "number"}}},
        },
    }
    for serial in range(20)
]


def conversation(turns: int) -> list[dict[str, Any]]:
    turns_ = ((role, serial) for serial in range(turns) for role in ("user", "assistant"))
    said = "{}, turn {}: how high does the water stand?"
    return [SYSTEM, *({"role": role, "content": said.format(role, serial)} for role, serial in turns_)]


def test_the_encodings_that_models_need_are_needed(recorder: Recorder) -> None:
    with pytest.raises(KeyError, match="_base"):
        Tokenizer({}).count("hello", "gpt-4o")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_the_name_of_a_model_is_the_clients_and_costs_nothing(tokenizer: Tokenizer) -> None:
    for serial in range(3000):
        tokenizer.count("hello", f"{serial}" + "x" * 10_000)
    remembered = tokenizer._model.cache_info()
    assert remembered.currsize <= 1024


def test_a_conversation_that_is_sent_again_is_counted_from_where_it_was(recorder: Recorder) -> None:
    tokenizer = Tokenizer(encodings(recorder))
    for turns in range(1, 41):
        messages = conversation(turns)
        prompt = tokenizer.prompt({"messages": messages}, "gpt-4o")
        new = messages if turns == 1 else messages[-2:]
        assert recorder.heard() == [message["content"] for message in new]
        assert (
            prompt.tokens == Tokenizer(encodings(Recorder())).prompt({"messages": messages}, "gpt-4o").tokens
        )


def test_tools_that_are_sent_again_are_neither_rendered_nor_counted(recorder: Recorder) -> None:
    tokenizer = Tokenizer(encodings(recorder))
    document = {"messages": conversation(1), "tools": TOOLS}
    first = tokenizer.prompt(document, "gpt-4o")
    recorder.heard()
    again = tokenizer.tally({"messages": conversation(2), "tools": TOOLS}, "gpt-4o")
    assert again.remaining == sum(len(message["content"]) for message in conversation(2)[-2:])
    assert again.finish().parts["tools"] == first.parts["tools"]
    assert recorder.heard() == [message["content"] for message in conversation(2)[-2:]]


def test_a_tool_that_changed_is_counted_anew(recorder: Recorder) -> None:
    tokenizer = Tokenizer(encodings(recorder))
    tokenizer.prompt({"messages": [SYSTEM], "tools": TOOLS}, "gpt-4o")
    assert tokenizer.tally({"messages": [SYSTEM], "tools": TOOLS[:-1]}, "gpt-4o").remaining > 0


def test_models_of_one_encoding_share_what_was_counted_and_those_of_another_do_not(
    recorder: Recorder,
) -> None:
    tokenizer = Tokenizer(encodings(recorder))
    counted = []
    for model in ("gpt-4o", "o3", "gpt-4", "gpt-3.5-turbo", "llama-3"):
        tokenizer.prompt({"messages": conversation(1)}, model)
        counted.append(len(recorder.heard()))
    assert counted == [3, 0, 3, 0, 0]


def test_the_budget_is_that_of_a_request_not_of_each_text(recorder: Recorder) -> None:
    tokenizer = Tokenizer(encodings(recorder), clock=Clock(SECONDS / 2.5))
    tally = tokenizer.tally({"messages": conversation(10)}, "gpt-4o")
    prompt = tally.finish()
    assert len(recorder.heard()) == 3
    assert (prompt.exact, tally.work.bounded > 0) == (False, True)
    tokenizer.prompt({"messages": conversation(10)}, "gpt-4o")
    assert len(recorder.heard()) == 3


def test_the_budget_of_several_texts_is_one(recorder: Recorder) -> None:
    count = Tokenizer(encodings(recorder), clock=Clock(SECONDS / 2.5)).counts("gpt-4o")
    assert [count(f"the weir, number {serial}..") for serial in range(5)] == [5, 5, 5, 20, 20]


def test_several_threads_count_the_same_as_one(encodings: Mapping[str, Encode]) -> None:
    shared = Tokenizer(encodings, clock=Clock())
    documents = [
        {"messages": conversation(1 + serial % 7), "tools": TOOLS[serial % 5 :]} for serial in range(200)
    ]
    alone = [Tokenizer(encodings, clock=Clock()).prompt(document, "gpt-4o") for document in documents]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda document: shared.prompt(document, "gpt-4o"), documents))
    assert together == alone


def test_a_foreign_model_needs_no_encoding(recorder: Recorder) -> None:
    options = ModelOptions.model_validate({"bytes-per-token": 4})
    tokenizer = Tokenizer(encodings(recorder), {"llama-*": options})
    assert tokenizer.count("weir" * 5, "llama-3") == 5
    tokenizer.prompt({"messages": conversation(3), "tools": TOOLS}, "llama-3")
    assert recorder.texts == []
