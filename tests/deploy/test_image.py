"""The image is small and holds what was locked; what builds it is done here, without an engine."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement

from service import __version__
from service.settings import inherited
from tests.programs import DIGEST_KEY, until

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
BUILDER, FINAL = re.split(r"^FROM .*\n", DOCKERFILE, flags=re.MULTILINE)[1:]
INSTRUCTIONS = re.sub(r"^#.*\n", "", BUILDER.replace("\\\n", " "), flags=re.MULTILINE)
MEGABYTE = 1_000_000


def let_through() -> list[str]:
    """What the build sees of the repository."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line[1:].rstrip("/") for line in lines if line.startswith("!")]


def locked() -> list[str]:
    """What requirements.lock installs on this system."""
    lines = re.findall(r"^(\w\S*==[^\\\n]*)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    read = [Requirement(line) for line in lines]
    return [one.name for one in read if one.marker is None or one.marker.evaluate()]


def size(distribution: str) -> int:
    """Bytes of what a wheel has installed."""
    files = [file.locate() for file in importlib.metadata.files(distribution) or ()]
    return sum(os.stat(file).st_size for file in files if os.path.exists(file))


# What the file says


def test_it_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\d+):(\d+)$", FINAL, re.MULTILINE) == [("10001", "10001")]


def test_it_is_built_from_what_was_locked_and_nothing_else() -> None:
    installs = re.findall(r"\bpip\b[^&\n]* (?:install|wheel) [^&\n]*", INSTRUCTIONS)
    assert len(installs) == 4
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert "--no-build-isolation" in installs[2]  # else it would fetch what builds, whatever was locked
    assert "apt" not in DOCKERFILE


def test_no_other_program_is_fetched_to_build_it_with() -> None:
    assert not re.search(r"^#\s*syntax", DOCKERFILE, re.MULTILINE)


def test_nothing_is_run_to_make_its_last_stage() -> None:
    assert "RUN" not in FINAL
    assert re.findall(r"^COPY (.+)$", FINAL, re.MULTILINE) == ["--from=builder /opt/weir /opt/weir"]


def test_it_starts_weir_without_a_shell_between() -> None:
    for instruction in ('ENTRYPOINT ["weir"]', 'CMD ["serve"]', 'CMD ["weir", "health"]'):
        assert instruction in FINAL


def test_the_context_holds_what_the_build_copies_and_what_the_wheel_wants() -> None:
    lines = re.findall(r"^COPY (.+) \S+$", BUILDER, re.MULTILINE)
    copied = {word.rstrip("/") for line in lines for word in line.split()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert copied == set(let_through())
    assert {*wanted["packages"], *wanted["force-include"]} <= copied
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_wheel_is_built_with_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]
    assert re.search(r"^hatchling==", (ROOT / "requirements-build.lock").read_text(), re.MULTILINE)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda path: path.name)
def test_a_lock_names_no_place_to_get_it_from(lock: Path) -> None:
    assert "://" not in lock.read_text()


def test_what_is_installed_from_the_lock_is_no_more_than_120_mb() -> None:
    sizes = {name: size(name) for name in locked()}
    assert all(sizes.values()), sizes
    assert sum(sizes.values()) <= 120 * MEGABYTE, sizes


# What it does


@dataclass(frozen=True, slots=True)
class Built:
    """What the builder left in place of /opt/weir."""

    place: Path

    def weir(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """A command's exit code and all it said, with no way to a network and no Python but its own."""
        told = {"PATH": str(self.place / "bin"), "ALL_PROXY": "http://127.0.0.1:9", **environment}
        command = [str(self.place / "bin" / "weir"), *arguments]
        done = subprocess.run(command, env=told, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What the builder runs, in a copy of the context, by a Python and a pip as its base has them."""
    folder = tmp_path_factory.mktemp("image")
    source, base, place = (folder / name for name in ("source", "base", "weir"))
    source.mkdir()
    for name in let_through():
        (source / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True)
    path = {"PATH": f"{base}/bin:{os.defpath}"}
    for instruction in re.findall(r"^RUN (.*)$", INSTRUCTIONS, re.MULTILINE):
        command = instruction.replace("/opt/weir", str(place)).replace("/wheels", f"{folder}/wheels")
        done = subprocess.run(
            command,
            shell=True,
            cwd=source,
            env={**inherited(), **path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return Built(place)


@pytest.fixture
def serving(built: Built) -> Iterator[str]:
    """The port of operations of what was built, which serves as the image does."""
    told = {"WEIR_PORT": "0", "WEIR_OPS_PORT": "0", "WEIR_DIGEST_KEY": DIGEST_KEY, "WEIR_DRAIN": "0s"}
    command = [str(built.place / "bin" / "weir"), "serve"]
    with subprocess.Popen(command, env=told, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = next(record for line in process.stdout if (record := json.loads(line))["event"] == "serving")
        yield str(urlsplit(said["operations"]).port)
        process.terminate()
        process.stdout.read()
    assert process.returncode == 0


@pytest.mark.network
def test_what_was_built_is_this_version(built: Built) -> None:
    assert built.weir("--version") == (0, f"weir {__version__}\n")


@pytest.mark.network
def test_what_was_built_has_its_definition(built: Built) -> None:
    code, said = built.weir("check")
    assert (code, "good" in said) == (0, True)


@pytest.mark.network
def test_what_was_built_counts_without_a_network(built: Built, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(
        '{"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep is the river?"}]}'
    )
    code, said = built.weir("count", "--json", str(body))
    assert (code, json.loads(said)["tokens"]) == (0, 13)


@pytest.mark.network
def test_what_was_built_is_healthy_when_it_serves_and_not_before(built: Built, serving: str) -> None:
    assert built.weir("health", WEIR_OPS_PORT="9")[0] == 1
    until(lambda: built.weir("health", WEIR_OPS_PORT=serving)[0] == 0)


@pytest.mark.network
def test_what_was_built_has_no_pip_and_no_tools(built: Built) -> None:
    there = {path.name for path in (built.place / "bin").iterdir()}
    assert "weir" in there
    assert not there & {"pip", "hatchling", "pytest"}


@pytest.mark.network
def test_what_was_built_is_no_more_than_120_mb(built: Built) -> None:
    libraries = built.place / "lib"
    assert sum(path.lstat().st_size for path in libraries.rglob("*") if path.is_file()) <= 120 * MEGABYTE
