"""The wheel brings what the gateway needs, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_installs_one_package(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"service"}


@pytest.mark.parametrize(
    "file",
    [
        "service/lua/account.lua",
        "service/lua/reserve.lua",
        "service/OpenAI_Chat_Completions_API.yaml",
        "service/vocabularies/o200k_base.tiktoken.xz",
        "service/vocabularies/cl100k_base.tiktoken.xz",
        "service/vocabularies/NOTICE",
    ],
)
def test_the_wheel_brings(names: list[str], file: str) -> None:
    assert file in names
