"""Keyring: who calls, told from the Authorization field, with which models and which plan."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AfterValidator, BaseModel, Field

from service.domain.decoding import decode
from service.domain.errors import Forbidden, Rejection, Unauthenticated
from service.domain.exchange import Credential
from service.domain.headers import Field as HeaderField
from service.domain.marks import Document, near

_POLL = 2.0  # s between two looks at the keys file
_CHALLENGE: HeaderField = (b"www-authenticate", b"Bearer")
_NOBODY = hashlib.sha256().hexdigest()  # compared with where a key is unknown, so that it takes as long
_MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
)


class Keyring(Protocol):
    """Tells who calls."""

    def identify(self, authorization: bytes | None) -> Credential:
        """Whose request this is. Raises Unauthenticated or Forbidden."""

    def refresh(self, now: float) -> None:
        """See whether the keys have changed; `now` in seconds of a monotonic clock."""


class Log(Protocol):
    """Where a reload is reported."""

    def info(self, event: str, /, **fields: object) -> None:
        """Something happened."""

    def error(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """Something went wrong."""


class KeysError(Exception):
    """A keys file that is not one; `errors` are lines of `file:line:column: path: what was expected`."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class PassThrough:
    """Every key is welcome, as upstream checks it. Credentials are the keyed digests of the keys."""

    def __init__(self, digest: Callable[[str], str]) -> None:
        self._digest = digest

    def identify(self, authorization: bytes | None) -> Credential:
        """A credential for the key. Raises Unauthenticated where there is none."""
        return Credential("key-" + self._digest(_token(authorization))[:16])

    def refresh(self, now: float) -> None:
        """There is nothing to see: pass-through keeps no keys."""


class VirtualKeys:
    """Keys of our own, from a file that names them by their SHA-256. Their plans are some of the given ones.

    `errors` says what is wrong with the file as it now is; meanwhile the last good keys are in force.
    Raises KeysError where the file is no good to begin with.
    """

    def __init__(self, file: Path, log: Log, *, plans: Collection[str] = ()) -> None:
        self._file = file
        self._log = log
        self._plans = plans
        self._seen = _signature(file)
        self._keys = read(file, plans=plans)
        self._looked: float | None = None
        self.errors: list[str] = []

    def identify(self, authorization: bytes | None) -> Credential:
        """The credential of a known key. Raises Unauthenticated, or Forbidden for a disabled key."""
        token = _token(authorization)
        digest = hashlib.sha256(token.encode("latin-1")).hexdigest()
        key = self._keys.get(digest)
        if not hmac.compare_digest(digest, key.sha256 if key else _NOBODY) or key is None:
            raise Unauthenticated(
                f"Incorrect API key provided: {_hint(token)}. "
                "Ask the people who run this gateway for a key of yours.",
                headers=[_CHALLENGE],
            )
        if key.disabled:
            raise Forbidden("The API key you provided is disabled. Ask the people who run this gateway why.")
        return Credential(key.id, key.models, key.plan or "")

    def refresh(self, now: float) -> None:
        """Read the file again where it has changed, looking at most every two seconds.

        Costs nothing in between. May be called from a thread: the keys are replaced in one piece.
        """
        if self._looked is not None and now - self._looked < _POLL:
            return
        self._looked = now
        signature = _signature(self._file)
        if signature != self._seen:
            self._seen = signature
            self._reload()

    def _reload(self) -> None:
        try:
            self._keys = read(self._file, plans=self._plans)
        except KeysError as error:
            self.errors = error.errors
            self._log.error("keys.refused", file=str(self._file), errors=error.errors)
        else:
            self.errors = []
            self._log.info("keys.loaded", file=str(self._file), keys=len(self._keys))


def allows(credential: Credential, model: str) -> bool:
    """Whether a credential may use a model: any, where it names none; else one its patterns match."""
    return credential.models is None or any(fnmatchcase(model, pattern) for pattern in credential.models)


def new_key(id: str) -> tuple[str, str]:
    """A new key, which is kept nowhere, and its line for the keys file. Raises ValueError on an odd id."""
    key = "weir_" + secrets.token_urlsafe(32)
    entry = Key(sha256=hashlib.sha256(key.encode()).hexdigest(), id=id)
    return key, f"- {{sha256: {entry.sha256}, id: {json.dumps(entry.id)}}}"


def read(file: Path, *, plans: Collection[str] = ()) -> dict[str, "Key"]:
    """The keys of a file by their digests. Raises KeysError with everything that is wrong.

    That a key has another plan than one of `plans` is wrong too.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError([f"{file}: expected a file of keys: {error}"]) from None
    document = Document(text, file=str(file))
    keys = decode(document, (), _Keys)
    _refuse_repeats(document)
    _refuse_other_plans(document, plans)
    if errors := document.errors():
        raise KeysError(errors)
    return {key.sha256: key for key in keys.keys} if keys else {}


def _listed(document: Document, member: str) -> Iterator[tuple[int, str]]:
    """What the keys have as a member, where it is a text, and which key has it."""
    listed = document.value(("keys",))
    for index, key in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(key, dict) and isinstance(key.get(member), str):
            yield index, key[member]


def _refuse_repeats(document: Document) -> None:
    seen = set()
    for index, digest in _listed(document, "sha256"):
        if digest in seen:
            document.fault(("keys", index, "sha256"), "expected a key that is not in the file twice")
        seen.add(digest)


def _refuse_other_plans(document: Document, plans: Collection[str]) -> None:
    known = ", ".join(plans) or "there is none"
    for index, plan in _listed(document, "plan"):
        if plan not in plans:
            message = f'expected a plan of the definition ({known}), not "{plan}"{near(plan, plans)}'
            document.fault(("keys", index, "plan"), message)


def _sha256(text: str) -> str:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        # The text is not repeated: it may be the key itself.
        raise ValueError(
            "expected the SHA-256 of a key as 64 lower-case hexadecimal digits, not another text"
        )
    return text


class Key(BaseModel, extra="forbid", frozen=True):
    """A virtual key: its digest, whose it is, what it may be used for, and its plan, if it has one."""

    sha256: Annotated[str, AfterValidator(_sha256)]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}$")]
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    plan: str | None = None
    disabled: bool = False


class _Keys(BaseModel, extra="forbid", frozen=True):
    keys: tuple[Key, ...]


def _token(authorization: bytes | None) -> str:
    scheme, _, token = (authorization or b"").decode("latin-1").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        missing: Rejection = Unauthenticated(_MISSING, headers=[_CHALLENGE])
        missing.code = None
        raise missing
    return token.strip()


def _hint(token: str) -> str:
    """Enough of a key to know it again, as OpenAI shows it; nothing of one too short for that."""
    if len(token) < 20 or not token.isascii():
        return "****"
    return f"{token[:5]}****{token[-4:]}"


def _signature(file: Path) -> tuple[int, int, int, int] | None:
    """What changes when the file does, be it written anew, replaced, or what a link leads to."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
