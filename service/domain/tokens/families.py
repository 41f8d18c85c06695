"""Families: what differs between models where tokens are counted, one row a fact, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from service.domain.tokens.images import Limit, Patches, Tiles

_SMALL = Limit(512)
_FITTED = Limit(2048)
_1536 = Limit(2048, 1536)
_2500 = Limit(2048, 2500)
_10000 = Limit(6000, 10_000)
_ORIGINAL = Limit(65_535)
_AS_MOST = Patches(120, _2500, low=_SMALL, original=_10000)  # of models that nobody here knows: a guess


@dataclass(frozen=True, slots=True)
class Family:
    """How a model counts: its encoding, and in tokens what surrounds the text.

    It is `known` where a fact names the model; else it is a guess that it counts as new ones do.
    `per_message`, `per_name` (where a message has one) and `reply` (once) are the chat format's. `tools` is
    what surrounds definitions; they have a message of their own, or are `joined` to a system message, and
    `custom` is added to a tool that is no function; without `typescript` they are read as JSON. `choices`: it
    costs to say which tool is to be called. `per_call` is added to a message of the assistant that calls,
    `per_answer` to one that does not. `early` names what is rendered as in 2023, by the members of a request;
    `parallel` is of several `tool_calls`.
    `image` says what one costs by its size, `per_audio` what surrounds a sound.
    `unknown_image`, `unknown_audio` and `unknown_file` are the operator's word on one of which nothing can be
    known; None: the worst case, or a guess.
    """

    known: bool = False
    encoding: str = "o200k_base"
    per_message: int = 3
    per_name: int = 1
    reply: int = 3
    tools: int = 9
    joined: int = -4
    typescript: bool = True
    custom: int = 0
    choices: bool = True
    per_call: int = 0
    per_answer: int = 0
    early: frozenset[str] = frozenset()
    image: Tiles | Patches = _AS_MOST
    per_audio: int = 4  # recorded answers of gpt-4o-audio-preview, gpt-4o-mini-audio-preview, gpt-audio-mini
    unknown_image: int | None = None
    unknown_audio: int | None = None
    unknown_file: int | None = None


class Fact(NamedTuple):
    """Models as globs parted by spaces, what is true of them, and who says so."""

    models: str
    what: Mapping[str, Any]
    source: str


_COOKBOOK = "openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb"
# Recorded answers for images in patches have one token more than it says ("can differ by one token").
_VISION = "OpenAI documentation, guides/images-vision, Calculating costs (September 2026)"
_VISION_BEFORE = "the same, until July 2026"
_FORUM = "measured, community.openai.com"
_RECORDED = "recorded answers (pydantic-ai, ruby_llm, openai-tokens-count)"

_HMARR = "hmarr/openai-chat-tokens, counts that the API reported in 2023"
_EXCHANGES = "pydantic-ai, ruby_llm and crewAI, recorded exchanges of 2025 and 2026"

# In order: what a later row says wins.
FACTS = (
    Fact(
        "gpt-4 gpt-4-* gpt-3.5* gpt-35-* text-embedding-* davinci-002 babbage-002",
        {"encoding": "cl100k_base"},
        "tiktoken/model.py",
    ),
    Fact("gpt-3.5-turbo-0301", {"per_message": 4, "per_name": -1}, f"{_COOKBOOK}, first edition"),
    Fact("gpt-3.5-turbo", {"early": frozenset({"functions", "function_call", "parallel"})}, _HMARR),
    Fact(
        "gpt-3.5-turbo-0613 gpt-3.5-turbo-16k* gpt-4-0613",
        {"early": frozenset({"functions", "function_call", "tools", "tool_calls", "parallel"})},
        "dd-trace-py and req_llm, recorded exchanges of both snapshots of June 2023",
    ),
    Fact(
        "gpt-4 gpt-4-0314 gpt-4-32k*",
        {"early": frozenset({"function_call", "tool_calls", "parallel"})},
        "forestwanglin/openai-java, issue 5: 35 tokens",
    ),
    Fact("gpt-5* o3* o4*", {"reply": 2}, f"{_EXCHANGES}; gpt-5.6 says 7 for 'ping'"),
    Fact("gpt-5*", {"tools": 91, "joined": -1, "choices": False, "per_call": 6, "per_answer": 2}, _EXCHANGES),
    Fact("gpt-5*", {"custom": 33}, "dd-trace-py, one recorded exchange"),
    # Images.
    Fact(
        "gpt-4o* chatgpt-4o* gpt-4.1* gpt-4.5* gpt-4 gpt-4-*",
        {"image": Tiles(85, 170)},
        f"{_VISION}; gpt-4-turbo: of 2024; {_RECORDED}",
    ),
    Fact("gpt-4o-mini*", {"image": Tiles(2833, 5667)}, f"{_VISION}; {_RECORDED}"),
    Fact(
        "gpt-5 gpt-5-* gpt-5.1*",
        {"image": Tiles(70, 140)},
        f"{_VISION}; gpt-5-codex, gpt-5-pro: a guess",
    ),
    Fact(
        "o1 o1-* o3 o3-*",
        {"image": Tiles(75, 150)},
        f"{_VISION}; o3 {_FORUM}, where o1-2024-12-17 cost less",
    ),
    Fact("computer-use-preview*", {"image": Tiles(65, 129)}, _VISION_BEFORE),
    Fact(
        "gpt-4.1-mini*",
        {"image": Patches(162, _FITTED)},
        f"{_VISION}: 6,144 patches, more than fit into 2,048 px (1,536 until July 2026); {_FORUM}",
    ),
    Fact(
        "gpt-4.1-nano*",
        {"image": Patches(246, _1536)},
        f"{_VISION_BEFORE}; {_RECORDED}; 1,536 {_FORUM}",
    ),
    Fact("o4-mini*", {"image": Patches(172, _1536)}, _VISION_BEFORE),
    Fact("codex-mini*", {"image": Patches(172, _1536)}, _FORUM),
    Fact(
        "gpt-5-mini*",
        {"image": Patches(120, _1536)},
        f"{_VISION}; {_FORUM}; 1,536 {_VISION_BEFORE}, which said × 1.62",
    ),
    Fact(
        "gpt-5-nano*",
        {"image": Patches(150, _1536)},
        f"{_VISION}; {_RECORDED}; 1,536 {_VISION_BEFORE}, which said × 2.46",
    ),
    Fact("gpt-5.2*", {"image": Patches(120, _FITTED)}, f"{_VISION}: 6,144 patches (1,536 until July 2026)"),
    Fact(
        "gpt-5-codex-mini* gpt-5.1-codex-mini* gpt-5.2-codex* gpt-5.2-chat* gpt-5.3*",
        {"image": Patches(120, _1536)},
        f"1,536: documentation of March 2026; × 1.2: {_FORUM} (gpt-5.3-codex), of the others a guess",
    ),
    Fact("gpt-5.4*", {"image": Patches(120, _2500, low=_FITTED, original=_10000)}, _VISION),
    Fact("gpt-5.5*", {"image": Patches(120, _2500, low=_SMALL, original=_10000, auto=_10000)}, _VISION),
    Fact(
        "gpt-5.[6-9]* gpt-5.[1-9][0-9]* gpt-[6-9]* gpt-1[0-9]*",
        {"image": Patches(120, _2500, low=_SMALL, original=_ORIGINAL, auto=_ORIGINAL)},
        f"{_VISION}: gpt-5.6; gpt-6-luna {_FORUM}; of others a guess",
    ),
    Fact(
        "gpt-6-astra*",
        {"image": Patches(120, Limit(65_535, 2500), low=_SMALL, original=_ORIGINAL, auto=_ORIGINAL)},
        "two open-source clients that quote the documentation",
    ),
)


def facts(model: str) -> list[Fact]:
    """What is known of a model by its name as a client writes it, in the order in which it counts.

    A provider's prefix (`openai/gpt-4o`), capitals, and a fine-tuned model's suffixes
    (`ft:gpt-4o:org::id`) do not matter.
    """
    base = model.lower().rpartition("/")[2].removeprefix("ft:").partition(":")[0]
    return [fact for fact in FACTS if any(fnmatchcase(base, glob) for glob in fact.models.split())]


def family(model: str) -> Family:
    """What the facts say of a model; one that none of them knows counts as new ones do."""
    known = facts(model)
    found = Family(known=bool(known))
    for fact in known:
        found = replace(found, **fact.what)
    return found
