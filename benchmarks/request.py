"""Request: the one that every load sends, asked by a thousand users in turn."""

import json
from urllib.parse import urlsplit

USERS = 1000
LENGTH = 733  # bytes of a body
BASE = "/v1"
PATH = BASE + "/chat/completions"
HEADERS = {"authorization": "Bearer benchmark", "content-type": "application/json"}

_MESSAGES = (
    ("system", "You are the keeper of a weir. You answer in plain words, briefly, and never guess."),
    ("user", "The river has risen by forty centimetres since the morning. Which gates should be opened?"),
    ("assistant", "The two in the middle, by a third each; look again in half an hour."),
    ("user", "It has risen by another ten, and the mill downstream asks for less. "),
)
_FILLING = "What do I tell the miller, and what do I do with the gates until the evening? "


def body(user: int) -> bytes:
    """The body of a user from 0 to 999: four messages, 64 tokens to answer with, 733 bytes."""
    messages = [{"role": role, "content": content} for role, content in _MESSAGES]
    asked = {"model": "gpt-4o", "user": f"user-{user % USERS:04}", "max_tokens": 64, "messages": messages}
    missing = LENGTH - len(json.dumps(asked))
    messages[-1]["content"] += (_FILLING * (missing // len(_FILLING) + 1))[:missing]
    return json.dumps(asked).encode()


def whole(url: str, user: int) -> bytes:
    """The request as it goes over the wire to the server at `url`."""
    content = body(user)
    fields = {"host": urlsplit(url).netloc, **HEADERS, "content-length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + content
