"""Chat: what Weir needs to know of a Chat Completions request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.domain import json_text
from service.domain.errors import InvalidRequest, UnsupportedMedia
from service.domain.headers import Field, first
from service.domain.misfits import wrong_type

_HINT = (
    "(HINT: This likely means you aren't using your HTTP library correctly. The body must be a JSON object.)"
)
CAP = "max_completion_tokens"
MOST_CHOICES = 128  # of OpenAI's API
MOST_TOKENS = 10**9  # of a declared cap
_USAGE_WANTED = '{"include_usage":true}'


@dataclass(frozen=True, slots=True)
class Chat:
    """A Chat Completions request, as far as it decides anything here.

    `cap` is the declared bound of the completion in tokens per choice, the larger where both fields
    are there; None where none is declared. `user` is `user`, or else `safety_identifier`.
    """

    document: Mapping[str, Any]
    model: str
    stream: bool = False
    has_options: bool = False  # there is a member `stream_options`
    include_usage: bool = False
    user: str | None = None
    n: int = 1
    cap: int | None = None


def parse(body: bytes) -> Chat:
    """Read a request body. Raises InvalidRequest, in OpenAI's words, where Weir itself could not go on."""
    try:
        document = json_text.decode(body)
    except json_text.Malformed as malformed:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request: {malformed}. {_HINT}"
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"We could not parse the JSON body of your request: not an object. {_HINT}")
    model = document.get("model")
    if model is None:
        raise InvalidRequest("you must provide a model parameter")
    if not isinstance(model, str) or not model:
        raise wrong_type("model", "string", model)
    caps = [_count(document, name) for name in (CAP, "max_tokens")]
    options = document.get("stream_options")
    return Chat(
        document=document,
        model=model,
        stream=_flag(document, "stream"),
        has_options="stream_options" in document,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        user=_text(document, "user") or _text(document, "safety_identifier"),
        n=_count(document, "n", most=MOST_CHOICES) or 1,
        cap=max((cap for cap in caps if cap is not None), default=None),
    )


def refuse_other_media(fields: list[Field]) -> None:
    """Only plain JSON is read. Raises UnsupportedMedia."""
    kind = (first(fields, b"content-type") or b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        said = kind.decode("latin-1")
        raise UnsupportedMedia(f"Unsupported media type '{said}'. Use 'application/json'.")
    if (first(fields, b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMedia("Content encodings are not supported. Send the body as it is.")


def asking_for_usage(body: bytes, *, has_options: bool = True) -> bytes:
    """The body of a streamed request, with `stream_options.include_usage` spliced in.

    No other byte changes: nothing is decoded and written anew. Where it is known that there are no
    `stream_options`, they are not looked for.
    """
    text = body.decode()
    if not has_options:
        return json_text.with_first_member(text, "stream_options", _USAGE_WANTED).encode()
    options = json_text.find(text, "stream_options")
    if options is None or text[options.value] != "{":
        return json_text.with_member(text, "stream_options", _USAGE_WANTED).encode()
    return json_text.with_member(text, "include_usage", "true", at=options.value).encode()


def capped(body: bytes, cap: int, *, has_cap: bool = True) -> bytes:
    """The body of a request, with its cap (tokens per choice) spliced in; no other byte changes.

    Where it is known that there is no such member, not even null, it is not looked for.
    """
    put = json_text.with_member if has_cap else json_text.with_first_member
    return put(body.decode(), CAP, str(cap)).encode()


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise wrong_type(name, "boolean", value)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is None or isinstance(value, str):
        return value
    raise wrong_type(name, "string", value)


def _count(document: Mapping[str, Any], name: str, *, most: int = MOST_TOKENS) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_type(name, "integer", value)
    if value < 1:
        raise InvalidRequest(
            f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if value > most:
        raise InvalidRequest(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {most}.",
            param=name,
            code="integer_above_max_value",
        )
    return value
