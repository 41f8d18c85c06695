"""Commands: Weir's command line, asked within this process."""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from service.__main__ import main
from service.settings import inherited


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    text: str
    complaints: str

    @property
    def json(self) -> Any:
        assert (self.code, self.complaints) == (0, "")
        return json.loads(self.text)

    def row(self, *begins: str) -> list[str]:
        """The cells of the line of a table that begins so."""
        rows = [re.split(r"  +", line.strip()) for line in self.text.splitlines()]
        (found,) = (row for row in rows if row[: len(begins)] == list(begins))
        return found[len(begins) :]

    def policy(self, name: str) -> dict[str, Any]:
        """One of the policies that JSON tells of."""
        (found,) = (one for one in self.json["policies"] if one["policy"] == name)
        assert isinstance(found, dict)
        return found


def ask_command(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    """What a command says to these words."""
    try:
        code = main(list(words))
    except SystemExit as end:  # argparse's way
        code = end.code if isinstance(end.code, int) else 1
    captured = capsys.readouterr()
    return Said(code, captured.out, captured.err)


def forget_settings(environment: pytest.MonkeyPatch) -> None:
    """Let nothing that lies in the environment be a setting of Weir's."""
    for name in inherited():
        if name.startswith("WEIR_") or name in ("REDIS_URL", "UPSTREAM_URL", "OPENAI_API_KEY"):
            environment.delenv(name)
