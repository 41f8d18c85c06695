"""Body: a request's body, counted as the gateway counts it, and then message by message."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.domain import chat, json_text
from service.domain.chat import Chat
from service.domain.tokens import Tokenizer
from service.domain.tokens import chat as prompts
from service.domain.tokens.families import Family
from service.domain.tokens.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Message:
    """Who speaks, the tokens of a message with what frames it, and what it says."""

    role: str
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """What a body counts. `most` is the provable bound; `bounded` characters were taken at it."""

    model: str
    family: Family
    prompt: Prompt
    most: int
    bounded: int
    messages: tuple[Message, ...]

    @property
    def rest(self) -> int:
        """Tokens that are no message's: the reply's beginning, tools, a format, a margin."""
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


def counted(asked: Chat, tokenizer: Tokenizer) -> Body:
    """Count within the gateway's budget; the messages afterwards, each within one of its own."""
    model, document = asked.model, asked.document
    tally = tokenizer.tally(document, model)
    prompt = tally.finish()
    family = tokenizer.family(model)
    most = prompts.read(document, family).bound() + prompt.parts.get("margin", 0)
    messages = tuple(_messages(document.get("messages"), model, tokenizer))
    return Body(model, family, prompt, most, tally.work.bounded, messages)


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
