"""Keyring: who is let in, under which name, what the others are told, and how keys come and go."""

import hashlib
import io
import json
import os
from pathlib import Path

import pytest

from service.adapters.keyring import KeysError, PassThrough, VirtualKeys, allows, new_key, read
from service.adapters.logs import Logs
from service.domain.errors import Forbidden, Unauthenticated
from service.domain.exchange import Credential

KEY = "weir_" + "0123456789abcdefghijklmnopqrstuvwxyzABCD_EFG"[:43]
OTHER_KEY = "weir_" + "Z" * 43


def digest(text: str) -> str:
    return hashlib.sha256(b"pepper" + text.encode()).hexdigest()


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def entry(key: str, rest: str) -> str:
    return f"  - {{sha256: {sha256(key)}, {rest}}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + entry(KEY, "id: team-a"))
    return path


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logs(stream: io.StringIO) -> Logs:
    return Logs(stream)


@pytest.fixture
def keys(file: Path, logs: Logs) -> VirtualKeys:
    return VirtualKeys(file, logs)


def knows(keys: VirtualKeys, key: str) -> bool:
    try:
        keys.identify(f"Bearer {key}".encode())
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer", b"Bearer  ", b"Basic dXNlcjp4", b"sk-naked"])
def test_who_brings_no_bearer_token_is_told_so_in_openais_words(
    authorization: bytes | None, keys: VirtualKeys
) -> None:
    for keyring in (PassThrough(digest), keys):
        with pytest.raises(Unauthenticated, match=r"^You didn't provide an API key\. ") as refusal:
            keyring.identify(authorization)
        error = json.loads(refusal.value.body())["error"]
        assert (refusal.value.status, error["type"], error["code"]) == (401, "invalid_request_error", None)
        assert refusal.value.headers == [(b"www-authenticate", b"Bearer")]


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER   "])
def test_passing_through_a_key_is_known_by_its_keyed_digest(scheme: bytes) -> None:
    credential = PassThrough(digest).identify(scheme + b"sk-123")
    assert credential == Credential("key-" + digest("sk-123")[:16])
    assert allows(credential, "any model")


def test_a_token_of_odd_bytes_is_a_token() -> None:
    keyring = PassThrough(digest)
    assert keyring.identify(b"Bearer \xff\xfe") != keyring.identify(b"Bearer \xff\xfd")


def test_a_virtual_key_has_the_name_that_the_file_gives_it(keys: VirtualKeys) -> None:
    assert keys.identify(b"Bearer " + KEY.encode()) == Credential("team-a")


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (OTHER_KEY, "weir_****ZZZZ"),
        ("sk-proj-0123456789abcdefMxYA", "sk-pr****MxYA"),
        ("short-secret", "****"),
        ("\xe9" * 40, "****"),
    ],
)
def test_an_unknown_key_is_refused_without_repeating_it(keys: VirtualKeys, token: str, shown: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        keys.identify(b"Bearer " + token.encode("latin-1"))
    error = json.loads(refusal.value.body())["error"]
    assert error["message"].startswith(f"Incorrect API key provided: {shown}. ")
    assert (refusal.value.status, error["code"]) == (401, "invalid_api_key")
    assert refusal.value.headers == [(b"www-authenticate", b"Bearer")]


def test_a_keys_digest_is_not_a_key(keys: VirtualKeys) -> None:
    assert not knows(keys, sha256(KEY))


def test_a_disabled_key_is_known_and_refused(file: Path, logs: Logs) -> None:
    file.write_text("keys:\n" + entry(KEY, "id: team-a, disabled: true"))
    with pytest.raises(Forbidden) as refusal:
        VirtualKeys(file, logs).identify(b"Bearer " + KEY.encode())
    assert (refusal.value.status, refusal.value.type) == (403, "permission_error")


def test_a_key_may_be_bound_to_models_by_patterns(file: Path, logs: Logs) -> None:
    file.write_text("keys:\n" + entry(KEY, 'id: team-a, models: [gpt-4o, "o3*"]'))
    credential = VirtualKeys(file, logs).identify(b"Bearer " + KEY.encode())
    assert [
        model for model in ("gpt-4o", "gpt-4o-mini", "o3", "o3-pro", "O3") if allows(credential, model)
    ] == [
        "gpt-4o",
        "o3",
        "o3-pro",
    ]


def test_two_keys_may_have_one_name_while_one_replaces_the_other(file: Path, logs: Logs) -> None:
    file.write_text("keys:\n" + entry(KEY, "id: team-a") + entry(OTHER_KEY, "id: team-a"))
    keys = VirtualKeys(file, logs)
    assert knows(keys, KEY)
    assert knows(keys, OTHER_KEY)


def test_a_changed_file_is_read_again(keys: VirtualKeys, file: Path) -> None:
    file.write_text("keys:\n" + entry(OTHER_KEY, "id: team-b"))
    keys.refresh(10.0)
    assert knows(keys, OTHER_KEY)
    assert not knows(keys, KEY)


def test_the_file_is_looked_at_every_two_seconds_at_most(keys: VirtualKeys, file: Path) -> None:
    keys.refresh(10.0)
    file.write_text("keys: []")
    keys.refresh(11.9)
    assert knows(keys, KEY)
    keys.refresh(12.0)
    assert not knows(keys, KEY)


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(
    keys: VirtualKeys, file: Path
) -> None:
    before = file.stat()
    new = file.with_name("new")
    new.write_text("keys:\n" + entry(OTHER_KEY, "id: team-a"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(file)
    assert file.stat().st_size == before.st_size
    keys.refresh(10.0)
    assert knows(keys, OTHER_KEY)


def test_keys_behind_links_that_are_swapped_are_read_again(tmp_path: Path, logs: Logs) -> None:
    """As Kubernetes does with a ConfigMap's files: keys.yaml -> ..data/keys.yaml, ..data -> ..1."""
    for name, key in (("..1", KEY), ("..2", OTHER_KEY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.yaml").write_text("keys:\n" + entry(key, "id: team-a"))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    keys = VirtualKeys(tmp_path / "keys.yaml", logs)
    (tmp_path / "swap").symlink_to("..2")
    (tmp_path / "swap").rename(tmp_path / "..data")
    keys.refresh(10.0)
    assert knows(keys, OTHER_KEY)
    assert not knows(keys, KEY)


@pytest.mark.parametrize("change", ["broken", "gone"])
def test_a_broken_file_keeps_the_old_keys_and_says_so_once(
    change: str, keys: VirtualKeys, file: Path, logs: Logs, stream: io.StringIO
) -> None:
    if change == "gone":
        file.unlink()
    else:
        file.write_text("keys: [{id: 7}]")
    keys.refresh(10.0)
    keys.refresh(20.0)
    assert knows(keys, KEY)
    assert keys.errors
    file.write_text("keys:\n" + entry(OTHER_KEY, "id: team-b"))
    keys.refresh(30.0)
    assert knows(keys, OTHER_KEY)
    assert keys.errors == []
    logs.close()
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["keys.refused", "keys.loaded"]


def test_everything_wrong_with_a_file_is_said_at_once_with_its_place(file: Path) -> None:
    file.write_text(
        "keys:\n"
        + entry(KEY, "id: team-a")
        + entry(KEY, "id: team-b")
        + entry(OTHER_KEY, "id: team a, disabled: maybe")
        + "  - {sha256: "
        + sha256("x")
        + ", id: team-c, modles: [gpt-4o]}\n"
    )
    with pytest.raises(KeysError) as refusal:
        read(file)
    assert [error.removeprefix(f"{file}:").split(": ")[:2] for error in refusal.value.errors] == [
        ["3:14", "keys[1].sha256"],
        ["4:84", "keys[2].id"],
        ["4:102", "keys[2].disabled"],
        ["5:92", "keys[3].modles"],
    ]
    assert refusal.value.errors[-1].endswith('(did you mean "models"?)')


def test_one_key_twice_is_refused(file: Path) -> None:
    file.write_text("keys:\n" + entry(KEY, "id: team-a") + entry(KEY, "id: team-b"))
    with pytest.raises(KeysError) as refusal:
        read(file)
    (error,) = refusal.value.errors
    assert error == f"{file}:3:14: keys[1].sha256: expected a key that is not in the file twice"


@pytest.mark.parametrize(
    "text", ["", "[]", "keys", "keys: {", f"keys: [{{sha256: {sha256('x')}, id: a, models: []}}]", "\x00"]
)
def test_a_file_that_is_no_keys_file_is_refused_at_the_start(text: str, file: Path, logs: Logs) -> None:
    file.write_text(text)
    with pytest.raises(KeysError):
        VirtualKeys(file, logs)


def test_a_file_that_is_not_there_or_not_text_is_refused_at_the_start(tmp_path: Path, logs: Logs) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name in ("absent", "bytes"):
        with pytest.raises(KeysError, match="expected a file of keys"):
            VirtualKeys(tmp_path / name, logs)


@pytest.mark.parametrize("wrong", [KEY, KEY.ljust(64, "x"), sha256(KEY).upper()])
def test_a_key_written_where_its_digest_belongs_is_not_repeated_in_the_error(wrong: str, file: Path) -> None:
    file.write_text(f"keys: [{{sha256: {wrong}, id: team-a}}]")
    with pytest.raises(KeysError, match="expected the SHA-256 of a key") as refusal:
        read(file)
    assert wrong not in str(refusal.value)


def test_a_new_key_and_its_line_fit_together(file: Path, logs: Logs) -> None:
    key, line = new_key("team-n")
    assert len(key) == len("weir_") + 43
    assert key not in line
    file.write_text(f"keys:\n{line}\n")
    assert VirtualKeys(file, logs).identify(b"Bearer " + key.encode()) == Credential("team-n")
    assert new_key("team-n")[0] != key


@pytest.mark.parametrize("id", ["yes", "123", "1e3", "2026-01-01"])
def test_a_name_that_yaml_would_read_as_something_else_stays_a_name(id: str, file: Path) -> None:
    file.write_text(f"keys:\n{new_key(id)[1]}\n")
    assert [key.id for key in read(file).values()] == [id]


@pytest.mark.parametrize("id", ["", "a b", "-a", "a\n", "x" * 65, "é"])
def test_a_name_that_could_not_be_logged_or_stored_as_it_is_makes_no_key(id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        new_key(id)


# Plans --------------------------------------------------------------------------------------------

PLANS = ("free", "pro")


def test_a_key_may_have_a_plan_of_the_definition(file: Path, logs: Logs) -> None:
    file.write_text("keys:\n" + entry(KEY, "id: team-a, plan: pro") + entry(OTHER_KEY, "id: team-b"))
    keys = VirtualKeys(file, logs, plans=PLANS)
    assert keys.identify(b"Bearer " + KEY.encode()) == Credential("team-a", None, "pro")
    assert keys.identify(b"Bearer " + OTHER_KEY.encode()).plan == ""
    assert PassThrough(digest).identify(b"Bearer sk-123").plan == ""


@pytest.mark.parametrize(
    ("plan", "plans", "said"),
    [
        ("prp", PLANS, 'expected a plan of the definition (free, pro), not "prp" (did you mean "pro"?)'),
        ("pro", (), 'expected a plan of the definition (there is none), not "pro"'),
        ("''", PLANS, 'expected a plan of the definition (free, pro), not ""'),
        ("5", PLANS, "expected a valid string, not 5"),
    ],
)
def test_a_plan_that_the_definition_does_not_know_is_told_with_its_line(
    plan: str, plans: tuple[str, ...], said: str, file: Path, logs: Logs
) -> None:
    line = entry(KEY, f"id: team-a, plan: {plan}")
    file.write_text("keys:\n" + line)
    with pytest.raises(KeysError) as refusal:
        VirtualKeys(file, logs, plans=plans)
    column = line.index("plan: ") + len("plan: ") + 1
    assert refusal.value.errors == [f"{file}:2:{column}: keys[0].plan: {said}"]


def test_a_key_file_with_an_unknown_plan_is_not_taken_and_the_last_good_keys_stay(
    file: Path, logs: Logs
) -> None:
    keys = VirtualKeys(file, logs, plans=PLANS)
    file.write_text("keys:\n" + entry(KEY, "id: team-a, plan: gold") + entry(OTHER_KEY, "id: team-b"))
    keys.refresh(0.0)
    assert knows(keys, KEY)
    assert not knows(keys, OTHER_KEY)
    (error,) = keys.errors
    assert 'not "gold"' in error
    file.write_text("keys:\n" + entry(KEY, "id: team-a, plan: free"))
    keys.refresh(10.0)
    assert keys.errors == []
    assert keys.identify(b"Bearer " + KEY.encode()).plan == "free"
