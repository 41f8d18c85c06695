"""Usage: the tokens of an exchange, estimated before and known after, and how an exchange can end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_TOKENS = 10**8  # a count beyond this is not believed

# How an exchange ends. The first is the good one.
OUTCOMES = (
    "complete",
    "rejected",  # by Weir: 4xx or 503 of our own
    "upstream_error",  # upstream answered 4xx or 5xx
    "upstream_refused",  # no connection: nothing was sent
    "upstream_broken",  # the connection died before or within the answer
    "timeout",
    "client_gone",
    "stopped",  # the worker had to end first
    "failed",  # a fault of ours
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens expected before the call: the prompt counted, the completion as far as it may go.

    `learned` is the completion that experience expects, never above the other; None where there is none.
    """

    prompt: int
    completion: int
    learned: int | None = None

    @property
    def total(self) -> int:
        """Prompt and completion."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens really used, and who says so.

    `source` is `provider` (upstream's own numbers), `local` (counted here: prompt estimate and what was
    relayed), `reservation` (unknown: what was reserved stands) or `none` (nothing was produced).
    """

    prompt: int
    completion: int
    source: str
    cached: int = 0
    reasoning: int = 0
    prompt_audio: int = 0
    completion_audio: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion."""
        return self.prompt + self.completion


NOTHING = Usage(prompt=0, completion=0, source="none")


def provided(document: object) -> Usage | None:
    """The usage an upstream's answer or chunk reports; None where it is absent or not to be believed.

    Believed are whole numbers from 0 to MOST_TOKENS; booleans, floats and strings are not.
    """
    if not isinstance(document, Mapping):
        return None
    usage = document.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt=prompt,
        completion=completion,
        source="provider",
        cached=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        reasoning=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        prompt_audio=_detail(usage, "prompt_tokens_details", "audio_tokens"),
        completion_audio=_detail(usage, "completion_tokens_details", "audio_tokens"),
    )


def _tokens(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    return count if type(count) is int and 0 <= count <= MOST_TOKENS else None


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int:
    details = usage.get(group)
    return (_tokens(details, name) or 0) if isinstance(details, Mapping) else 0
