"""Sheet: what one body counts, for people and for programs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from service.columns import cell, table
from service.count.body import Body
from service.domain.tokens.prompt import PARTS

_LONGEST_NAME = 80  # characters of a model or a role that are shown
_LONGEST_TEXT = 60  # of what a message says


def for_people(body: Body) -> str:
    """How the model counts, a table of parts, one of messages, and what is to be known of the total."""
    parts = [(name, str(tokens)) for name, tokens in _parts(body)]
    return "\n".join(
        [
            f"{cell(body.model, _LONGEST_NAME)}: {body.facts['encoding'] or 'by bytes'}",
            *(f"  {', '.join(_facts(what))}: {source}" for source, what in body.sources),
            *(f"definition, {glob}: {', '.join(_facts(said))}" for glob, said in body.said.items()),
            "",
            table([("part", "tokens"), *parts, ("total", str(body.prompt.tokens))]),
            "; ".join(_remarks(body)),
            "",
            table([("", "role", "tokens", "text"), *_messages(body)]),
        ]
    )


def for_programs(body: Body) -> str:
    """The same as JSON, the beginnings of messages as they are."""
    members = {
        "model": body.model,
        "family": body.facts,
        "sources": [{"source": source, "what": what} for source, what in body.sources],
        "definition": body.said,
        "parts": dict(_parts(body)),
        "tokens": body.prompt.tokens,
        "exact": body.prompt.exact,
        "at_most": body.most,
        "bounded_characters": body.bounded,
        "messages": [
            {"role": message.role, "tokens": message.tokens, "text": message.text[:_LONGEST_TEXT]}
            for message in body.messages
        ],
        "rest": body.rest,
    }
    return json.dumps(members, indent=2)


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    """What there is, by its names."""
    for name, value in facts.items():
        if isinstance(value, dict):
            value = f"({', '.join(_facts(value))})"
        elif isinstance(value, list):
            value = " ".join(value)
        if value not in (None, ""):
            yield f"{name.replace('_', ' ')} {value}"


def _parts(body: Body) -> list[tuple[str, int]]:
    """The parts that count something, in the order of all."""
    return [(name, tokens) for name in PARTS if (tokens := body.prompt.parts.get(name, 0))]


def _remarks(body: Body) -> Iterator[str]:
    yield "exact" if body.prompt.exact else "not exact"
    yield f"at most {body.most}, were each byte a token"
    if body.bounded:
        yield f"{body.bounded} characters were, as the budget was spent; each message below has its own"


def _messages(body: Body) -> Iterator[tuple[str, ...]]:
    for index, message in enumerate(body.messages):
        text = cell(message.text, _LONGEST_TEXT)
        yield str(index), cell(message.role, _LONGEST_NAME), str(message.tokens), text
    if body.rest is not None:
        yield "", "rest", str(body.rest), ""
