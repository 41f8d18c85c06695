from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.tokens import Tokenizer


def test_both_vocabularies_are_needed() -> None:
    with pytest.raises(KeyError, match="_base"):
        Tokenizer({})


def test_the_name_of_a_model_is_the_clients_and_costs_nothing(tokenizer: Tokenizer) -> None:
    for serial in range(3000):
        tokenizer.count("hello", f"{serial}" + "x" * 10_000)
    remembered = tokenizer._family.cache_info()
    assert remembered.currsize <= 1024


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])
PART_KINDS = st.sampled_from(["text", "refusal", "image_url", "input_audio", "file", "poem"])
PARTS = JSON | st.fixed_dictionaries(
    {"type": PART_KINDS | JSON}, optional={"text": JSON, "refusal": JSON, "image_url": JSON}
)
CALLS = JSON | st.fixed_dictionaries(
    {}, optional={"function": JSON, "custom": JSON, "type": JSON, "name": JSON}
)
MESSAGES = JSON | st.fixed_dictionaries(
    {"role": ROLES | JSON},
    optional={
        "content": st.lists(PARTS) | JSON,
        "name": JSON,
        "tool_calls": st.lists(CALLS) | JSON,
        "function_call": CALLS,
        "x": JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGES) | JSON,
        "tools": st.lists(CALLS) | JSON,
        "functions": st.lists(CALLS) | JSON,
        "tool_choice": CALLS | st.just("none"),
        "function_call": CALLS,
        "response_format": JSON | st.fixed_dictionaries({"json_schema": JSON}),
    },
)  # fmt: skip


@given(request_=REQUESTS | st.dictionaries(st.text(), JSON), model=st.text(st.characters(codec=None)))
def test_any_request_has_a_number_of_tokens(
    tokenizer: Tokenizer, request_: dict[str, Any], model: str
) -> None:
    assert tokenizer.prompt(request_, model) > 0
