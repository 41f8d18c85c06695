"""Rejections: the requests Weir answers itself, in the words of OpenAI's error envelope."""

import json
from collections.abc import Iterable

from service.domain.headers import Field


class Rejection(Exception):
    """A request that Weir answers itself.

    `message`, `type`, `param` and `code` are the four members of OpenAI's error envelope; `headers`
    are added to the answer.
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,
        status: int | None = None,
        headers: Iterable[Field] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.type = type or self.type
        self.status = status or self.status
        self.headers = list(headers)

    def body(self) -> bytes:
        """The envelope, as bytes of JSON."""
        return envelope(self.message, type=self.type, param=self.param, code=self.code)


def envelope(message: str, *, type: str, param: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's error envelope: an object with all four members, null where there is nothing to say."""
    error = {"message": message, "type": type, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode()


class InvalidRequest(Rejection):
    """The request is not what the API accepts."""

    status = 400
    type = "invalid_request_error"


class Unauthenticated(Rejection):
    """There is no key, or nobody knows it."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(Rejection):
    """The key is known, and may not do this."""

    status = 403
    type = "permission_error"


class NotFound(Rejection):
    """No such path, or an API that is not published."""

    status = 404
    type = "invalid_request_error"


class Gone(NotFound):
    """An API that was retired."""

    status = 410


class TooLarge(InvalidRequest):
    """The body is longer than the definition's max-body."""

    status = 413


class UnsupportedMedia(InvalidRequest):
    """The body is not plain JSON."""

    status = 415


class RateLimited(Rejection):
    """A policy refuses."""

    status = 429
    type = "tokens"
    code = "rate_limit_exceeded"


class LimiterUnavailable(Rejection):
    """The ledger is away and the policy says that nothing passes without it."""

    status = 503
    code = "rate_limiter_unavailable"


class UpstreamFailed(Rejection):
    """Upstream refused the connection, broke, or answered something that is not OpenAI's."""

    status = 502


class UpstreamTimeout(Rejection):
    """Upstream took longer than the definition's timeout."""

    status = 504
    code = "timeout"
