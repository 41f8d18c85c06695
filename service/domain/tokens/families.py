"""Families: what differs between models where tokens are counted, one row a fact, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Family:
    """How a model counts: its encoding, and in tokens what surrounds the text.

    `per_message`, `per_name` (where a message has one) and `reply` (once) are the chat format's.
    `image_low` and `image_high` are the most that an image of any size costs by its detail.
    """

    encoding: str = "o200k_base"
    per_message: int = 3
    per_name: int = 1
    reply: int = 3
    audio: int = 1200  # two minutes at ten tokens a second
    file: int = 4096  # some pages of text with their pictures
    image_low: int = 308  # 512 × 512 px in patches of 32, × 1.2
    image_high: int = 3000  # 2,500 patches × 1.2


class Fact(NamedTuple):
    """Models as globs parted by spaces, what is true of them, and who says so."""

    models: str
    what: Mapping[str, Any]
    source: str


_COOKBOOK = "openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb"
_VISION = "OpenAI documentation, guides/images-vision, Calculating costs"
_TILES = f"{_VISION}: base + at most 8 tiles"
_PATCHES = f"{_VISION} (2025): at most 1,536 patches × a factor"

# In order: what a later row says wins.
FACTS = (
    Fact(
        "gpt-4 gpt-4-* gpt-3.5* gpt-35-* text-embedding-* davinci-002 babbage-002",
        {"encoding": "cl100k_base"},
        "tiktoken/model.py",
    ),
    Fact("gpt-3.5-turbo-0301", {"per_message": 4, "per_name": -1}, f"{_COOKBOOK}, first edition"),
    Fact(
        "gpt-5*", {"reply": 2}, "recorded answers: 7 for 'ping' (gpt-5.6), 109 where gpt-4o says 110 (gpt-5)"
    ),
    Fact("gpt-4o* chatgpt-4o* gpt-4.1* gpt-4.5* gpt-4-*", {"image_low": 85, "image_high": 1445}, _TILES),
    Fact("gpt-4o-mini*", {"image_low": 2833, "image_high": 48169}, _TILES),
    Fact("gpt-5 gpt-5-* gpt-5.1*", {"image_low": 70, "image_high": 1190}, _TILES),
    Fact("o1* o3*", {"image_low": 75, "image_high": 1275}, _TILES),
    Fact("gpt-4.1-mini* gpt-5-mini*", {"image_low": 2489, "image_high": 2489}, _PATCHES),
    Fact("gpt-4.1-nano* gpt-5-nano*", {"image_low": 3779, "image_high": 3779}, _PATCHES),
    Fact("o4-mini*", {"image_low": 2642, "image_high": 2642}, _PATCHES),
)


def family(model: str) -> Family:
    """What the facts say of a model, by its name as a client writes it; an unknown one counts as new ones do.

    A provider's prefix (`openai/gpt-4o`), capitals, and a fine-tuned model's suffixes
    (`ft:gpt-4o:org::id`) do not matter.
    """
    base = model.lower().rpartition("/")[2].removeprefix("ft:").partition(":")[0]
    found = Family()
    for fact in FACTS:
        if any(fnmatchcase(base, glob) for glob in fact.models.split()):
            found = replace(found, **fact.what)
    return found
