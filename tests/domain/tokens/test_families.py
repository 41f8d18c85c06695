import pytest

from service.domain.tokens.families import FACTS, family

O200K = (
    "gpt-4o", "gpt-4o-mini-2024-07-18", "chatgpt-4o-latest", "gpt-4.1", "gpt-4.1-nano", "gpt-4.5-preview",
    "gpt-5", "gpt-5.1-codex", "gpt-6", "o1", "o3-mini", "o4-mini", "o5", "gpt-oss-120b", "gpt-audio",
    "codex-mini-latest", "openai/gpt-4o", "azure/openai/GPT-4o", "ft:gpt-4o-2024-08-06:weir::abc",
    "ft:gpt-4.1-mini:weir::abc", "ft:o4-mini:weir::abc", "llama-3.3", "anthropic/claude",
    "simulated", "", "/", ":",
)  # fmt: skip
CL100K = (
    "gpt-4", "gpt-4-0613", "gpt-4-32k", "gpt-4-turbo", "gpt-4-1106-preview", "gpt-3.5-turbo", "gpt-3.5",
    "gpt-35-turbo-16k", "openai/gpt-4", "GPT-4", "ft:gpt-4-0613:weir::abc", "ft:gpt-3.5-turbo:weir::abc",
    "openrouter/openai/gpt-3.5-turbo", "davinci-002",
)  # fmt: skip


@pytest.mark.parametrize("model", O200K)
def test_newer_and_unknown_models_count_with_o200k(model: str) -> None:
    assert family(model).encoding == "o200k_base"


@pytest.mark.parametrize("model", CL100K)
def test_the_models_before_gpt_4o_count_with_cl100k(model: str) -> None:
    assert family(model).encoding == "cl100k_base"


def test_every_fact_names_its_source() -> None:
    assert all(fact.source and fact.models and fact.what for fact in FACTS)
