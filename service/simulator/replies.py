"""Replies: what goes back to a request, decided before anything is sent."""

import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from service.domain import chat
from service.domain.errors import InvalidRequest, Rejection
from service.domain.headers import Field, first
from service.simulator.behaviour import Behaviour, asked
from service.simulator.completion import Completion, Event
from service.simulator.model import Model

_MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "gpt-3.5-turbo", "simulated")
_UNKNOWN_MODEL = "unknown-model"
_MOST_CHOICES = 128
_SLICE = 64  # bytes
_JSON: Field = (b"content-type", b"application/json")
_HTML: Field = (b"content-type", b"text/html; charset=UTF-8")
_EVENTS: Field = (b"content-type", b"text/event-stream; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back, and how; `prompt` is the tokens of the prompt that it answers."""

    status: int
    headers: list[Field]
    events: Iterable[Event]
    behaviour: Behaviour
    prompt: int = 0
    plain: bool = False  # one event of a known length, and nothing to wait for


def completion(model: Model, headers: list[Field], body: bytes, usual: Behaviour) -> Reply:
    """The reply to POST /v1/chat/completions."""
    try:
        _authenticate(headers)
        request = chat.parse(body)
        behaviour = asked(
            usual,
            header=_text(headers, b"x-simulate"),
            tokens=_text(headers, b"x-simulate-tokens"),
            model=request.model,
        )
        _check(request)
    except Rejection as rejection:
        return _rejected(rejection, usual)
    if behaviour.status != 200:
        return _failing(behaviour)
    return _answering(request, model.answer(request, body, behaviour), behaviour)


def elsewhere(method: str, path: str, headers: list[Field]) -> Reply:
    """The reply to everything else: the list of models, or that there is no such thing."""
    try:
        _authenticate(headers)
    except Rejection as rejection:
        return _rejected(rejection, Behaviour())
    if (method, path) == ("GET", "/v1/models"):
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "weir"} for name in _MODELS]
        return document({"object": "list", "data": models})
    wrong = Rejection(f"Invalid URL ({method} {path})", status=404, type="invalid_request_error")
    return _rejected(wrong, Behaviour())


def document(value: object) -> Reply:
    """A reply of JSON."""
    return _whole(200, json.dumps(value).encode(), Behaviour())


def _authenticate(headers: list[Field]) -> None:
    scheme, _, key = (first(headers, b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return
    raise Rejection(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using "
        "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        status=401,
        type="invalid_request_error",
    )


def _check(request: chat.Chat) -> None:
    """What OpenAI refuses and Weir has no need to know. Raises a Rejection."""
    if request.model == _UNKNOWN_MODEL:
        raise Rejection(
            f"The model `{request.model}` does not exist or you do not have access to it.",
            status=404,
            type="invalid_request_error",
            code="model_not_found",
        )
    if request.document.get("messages") is None:
        missing = "Missing required parameter: 'messages'."
        raise InvalidRequest(missing, param="messages", code="missing_required_parameter")
    if request.document.get("stream_options") is not None and not request.stream:
        alone = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise InvalidRequest(alone, param="stream_options")
    if request.n > _MOST_CHOICES:
        many = f"Invalid 'n': integer above maximum value. Expected a value <= {_MOST_CHOICES}."
        raise InvalidRequest(many, param="n", code="integer_above_max_value")


def _answering(request: chat.Chat, answer: Completion, behaviour: Behaviour) -> Reply:
    if request.stream:
        events = answer.events(include_usage=request.include_usage)
        events = _third_broken(events) if behaviour.malformed else events
        return Reply(200, _headers(_EVENTS, behaviour), events, behaviour, answer.prompt)
    body = answer.body()
    body = body[: len(body) // 2] if behaviour.malformed else body
    return _whole(200, body, behaviour, prompt=answer.prompt, tokens=answer.tokens)


def _third_broken(events: Iterable[Event]) -> Iterator[Event]:
    for at, event in enumerate(events):
        half = event.data[: len(event.data) // 2] + b"\n\n"
        yield Event(half, event.tokens) if at == 2 else event


def _failing(behaviour: Behaviour) -> Reply:
    """An error as OpenAI words it; what comes from the edge before it (502, 504) is a page of HTML."""
    status = behaviour.status
    if status in (502, 504):
        page = b"<html><head><title>%d</title></head><body><h1>%d</h1></body></html>" % (status, status)
        return _whole(status, page, behaviour, kind=_HTML)
    if status == 429:
        message, type_, code = "Rate limit reached for the simulated model.", "tokens", "rate_limit_exceeded"
        waiting = [(b"retry-after", b"1"), (b"retry-after-ms", b"1000")]
        rejection = Rejection(message, status=status, type=type_, code=code, headers=waiting)
    elif status < 500:
        rejection = Rejection("The simulated model refuses.", status=status, type="invalid_request_error")
    else:
        rejection = Rejection("The simulated model failed, as it was asked to.", status=status)
    return _rejected(rejection, behaviour)


def _rejected(rejection: Rejection, behaviour: Behaviour) -> Reply:
    reply = _whole(rejection.status, rejection.body(), behaviour)
    reply.headers.extend(rejection.headers)
    return reply


def _whole(
    status: int, body: bytes, behaviour: Behaviour, *, kind: Field = _JSON, prompt: int = 0, tokens: int = 0
) -> Reply:
    """A reply with a length; in slices and without one where it is not to come whole."""
    headers = _headers(kind, behaviour)
    if behaviour.is_whole():
        headers.append((b"content-length", b"%d" % len(body)))
        plain = not behaviour.latency and not behaviour.stall_head
        return Reply(status, headers, [Event(body, tokens)], behaviour, prompt, plain)
    slices = [Event(body[at : at + _SLICE], 0 if at else tokens) for at in range(0, len(body), _SLICE)]
    return Reply(status, headers, slices, behaviour, prompt)


def _headers(kind: Field, behaviour: Behaviour) -> list[Field]:
    headers = [
        kind,
        (b"x-request-id", b"req_%b" % secrets.token_hex(16).encode()),
        (b"openai-version", b"2020-10-01"),
    ]
    return [*headers, (b"connection", b"close")] if behaviour.close else headers


def _text(headers: list[Field], name: bytes) -> str:
    return (first(headers, name) or b"").decode("latin-1")
