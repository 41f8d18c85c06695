"""Body: a request's body, counted as the gateway counts it, and then message by message."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from service.domain import chat, json_text
from service.domain.chat import Chat
from service.domain.globs import Globs
from service.domain.tokens import Tokenizer
from service.domain.tokens import chat as prompts
from service.domain.tokens.families import facts as known_facts
from service.domain.tokens.options import Counting
from service.domain.tokens.prompt import Prompt

_ROUGH = "bytes-per-token"  # which takes the place of an encoding


@dataclass(frozen=True, slots=True)
class Message:
    """Who speaks, the tokens of a message with what frames it, and what it says."""

    role: str
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """What a body counts.

    `facts` are what is known of how the model counts, and `sources` who says what of it. `said` is what the
    definition says, in its own words, by the glob that matches; empty where it says nothing. `most` is the
    provable bound; `bounded` characters were taken at it.
    """

    model: str
    facts: Mapping[str, Any]
    sources: tuple[tuple[str, Mapping[str, Any]], ...]
    said: Mapping[str, Mapping[str, Any]]
    prompt: Prompt
    most: int
    bounded: int
    messages: tuple[Message, ...]

    @property
    def rest(self) -> int | None:
        """Tokens that are no message's: the reply's beginning, tools, a format, a margin.

        None where something was bounded: another budget goes further, or less far, with the same message.
        """
        if self.bounded:
            return None
        return self.prompt.tokens - sum(message.tokens for message in self.messages)


def read(body: bytes, model: str | None) -> Chat:
    """A body as the gateway reads it, with another model if one is named. Raises InvalidRequest."""
    if model is not None:
        try:
            document = json_text.decode(body)
        except json_text.Malformed:
            return chat.parse(body)  # which says so
        if isinstance(document, dict):
            body = json.dumps({**document, "model": model}).encode()
    return chat.parse(body)


def counted(asked: Chat, tokenizer: Tokenizer, counting: Counting) -> Body:
    """Count within the gateway's budget; the messages afterwards, each within one of its own."""
    model, document = asked.model, asked.document
    tally = tokenizer.tally(document, model)
    prompt = tally.finish()
    most = prompts.read(document, tokenizer.family(model)).bound() + prompt.parts.get("margin", 0)
    said = _said(model, counting)
    facts = asdict(tokenizer.family(model), dict_factory=_plain)
    like = next((options["like"] for options in said.values() if "like" in options), model)
    sources = tuple((fact.source, _plain(fact.what.items())) for fact in known_facts(like))
    if any(_ROUGH in options for options in said.values()):
        facts["encoding"] = None
    messages = tuple(_messages(document.get("messages"), model, tokenizer))
    return Body(model, facts, sources, said, prompt, most, tally.work.bounded, messages)


def _plain(facts: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Facts as JSON can have them."""
    return {name: _value(value) for name, value in facts}


def _value(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value) if isinstance(value, frozenset) else value


def _said(model: str, counting: Counting) -> dict[str, dict[str, Any]]:
    """The first glob that matches, with its options."""
    for glob, options in counting.items():
        if Globs((glob,)).match(model):
            return {glob: options.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)}
    return {}


def _messages(messages: object, model: str, tokenizer: Tokenizer) -> Iterator[Message]:
    """Each as if it were alone, less what a request without messages counts.

    Only answers of tools are read behind the calls they answer, as their names are said there.
    """

    def tokens(*some: object) -> int:
        prompt = tokenizer.prompt({"messages": list(some)}, model)
        return prompt.tokens - prompt.parts.get("margin", 0)

    calls: tuple[object, ...] = ()
    for message in messages if isinstance(messages, list) else ():
        said = message if isinstance(message, dict) else {"content": message}
        before = calls if said.get("role") == "tool" else ()
        yield Message(str(said.get("role", "-")), tokens(*before, message) - tokens(*before), _text(said))
        if said.get("tool_calls"):
            calls = (message,)


def _text(message: Mapping[str, Any]) -> str:
    """What it says, or else all that it has besides a role, as JSON."""
    content = message.get("content")
    if content is None:
        content = {name: value for name, value in message.items() if name != "role" and value is not None}
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
