"""Parts: what the content of a message is made of."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.domain.tokens import media
from service.domain.tokens.compact import compact, strings
from service.domain.tokens.families import Family
from service.domain.tokens.prompt import Reading

_TEXTS = ("text", "refusal")
_SAY_NOTHING = frozenset({"cache_control", "prompt_cache_breakpoint"})  # to the model


def text_of(part: object) -> str | None:
    """The text of a part that is text, a refusal included; None where it is none."""
    said = part.get(part.get("type")) if isinstance(part, dict) and part.get("type") in _TEXTS else None
    return said if isinstance(said, str) else None


def read_content(content: object, end: str, family: Family, reading: Reading) -> None:
    """All of a message's content, with `end` behind its last text. Parts of text in a row are one text."""
    if isinstance(content, str):
        reading.text("text", content + end)
    elif isinstance(content, list):
        for text in _runs(content, end):
            reading.text("text", text)
        read_others(content, family, reading)
    elif content is not None:
        reading.text("other", compact(content))


def read_others(parts: list[Any], family: Family, reading: Reading) -> None:
    """What parts have besides text: pictures, sounds, files, and members that only some models know."""
    for part in parts:
        if text_of(part) is not None:
            if len(part) > 2:
                said = {"type", part["type"]}
                _unknown({key: value for key, value in part.items() if key not in said}, reading)
        elif isinstance(part, dict) and part.get("type") in media.KINDS:
            _medium(part, family, reading)
        else:
            _unknown(part, reading)


def _runs(parts: list[Any], end: str) -> Iterator[str]:
    run: list[str] = []
    for part in parts:
        said = text_of(part)
        if said is None:
            yield "".join(run)
            run.clear()
        else:
            run.append(said)
    yield "".join(run) + end


def _medium(part: Mapping[str, Any], family: Family, reading: Reading) -> None:
    name, tokens, exact = media.tokens(part, family)
    reading.fixed[name] += tokens
    reading.fixed["framing"] += media.framing(part["type"], family)
    reading.guessed |= not exact


def _unknown(part: object, reading: Reading) -> None:
    if isinstance(part, dict):
        part = {key: value for key, value in part.items() if key not in _SAY_NOTHING}
        reading.guessed |= bool(part)
        for text in strings(part):
            reading.text("other", text)
    else:
        reading.guessed = True
        reading.text("other", compact(part))
