"""Scripts: found in the house, put together, and named by what they say."""

import hashlib
from pathlib import Path

from service.adapters.ledger import scripts


def test_a_script_is_named_by_the_digest_of_what_the_server_gets() -> None:
    for script in scripts.load():
        assert script.sha == hashlib.sha1(script.text.encode()).hexdigest()


def test_what_the_scripts_share_stands_in_front_of_each() -> None:
    shared = (scripts.folder() / "account.lua").read_text()
    for script in scripts.load():
        assert script.text == shared + (scripts.folder() / f"{script.name}.lua").read_text()


def test_each_script_is_there_once() -> None:
    loaded = list(scripts.load())
    assert [script.name for script in loaded] == list(scripts.NAMES)
    assert len({script.sha for script in loaded}) == len(scripts.NAMES)


def test_another_folder_can_be_read(tmp_path: Path) -> None:
    for name in ("account", *scripts.NAMES):
        (tmp_path / f"{name}.lua").write_text(f"-- {name}\n")
    assert scripts.load(tmp_path).peek.text == "-- account\n-- peek\n"
