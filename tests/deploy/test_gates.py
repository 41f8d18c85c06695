"""The gates read the deployment as the programs do that it is made for; and each would see a fault."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "systemd" / "weir.service").read_text()

BESIDE = Path(sys.executable).parent  # where the tools of the dev group are
SYSTEMD_ANALYZE = shutil.which("systemd-analyze") or ""
needs_systemd = pytest.mark.skipif(not SYSTEMD_ANALYZE, reason="there is no systemd-analyze on PATH")


def ran(*command: str | Path) -> tuple[int, str]:
    """A program's exit code and all that it said, in an environment of its own."""
    done = subprocess.run(command, env={"HOME": "/"}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def composed(*files: Path) -> tuple[int, str]:
    """What Compose says of these files together, as if there were no .env."""
    named = [word for file in files for word in ("--file", file)]
    nothing = ("--env-file", "/dev/null", "--project-directory", ROOT)
    return ran(BESIDE / "docker-compose", *nothing, *named, "config", "--quiet")


def confined(file: Path) -> tuple[int, str]:
    """What compose-lint says of a file: with the least of its findings it fails."""
    alone = ("--no-env", "--no-merge-overrides", "--strict-config", "--skip-suppressed", "--fail-on", "low")
    return ran(BESIDE / "compose-lint", "check", *alone, "--config", DEPLOY / "compose-lint.yml", file)


def linted(file: Path) -> tuple[int, str]:
    """What hadolint says of a Dockerfile, with no pragma heard."""
    return ran(BESIDE / "hadolint", "--no-color", "--disable-ignore-pragma", file)


def verified(directory: Path, text: str) -> tuple[int, str]:
    """What systemd says of a unit, where the program is one that exists."""
    path = directory / "weir.service"
    path.write_text(text.replace("/opt/weir/bin/weir", sys.executable))
    return ran(SYSTEMD_ANALYZE, "verify", "--man=no", path)


def planted(directory: Path, *, name: str, text: str, said: str, fault: str) -> Path:
    """The file with a fault in place of what it says; it must say it."""
    assert said in text
    path = directory / name
    path.write_text(text.replace(said, fault, 1))
    return path


def test_compose_accepts_the_file() -> None:
    assert composed(ROOT / "docker-compose.yml") == (0, "")


def test_compose_accepts_the_override_that_the_readme_shows(tmp_path: Path) -> None:
    readme = (DEPLOY / "README.md").read_text()
    block = readme[readme.index("docker-compose.override.yml") :].split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "docker-compose.override.yml"
    path.write_text(block)
    assert composed(ROOT / "docker-compose.yml", path) == (0, "")


@pytest.mark.parametrize(
    ("said", "fault", "found"),
    [
        ("depends_on:", "depends_onn:", "depends_onn"),
        ("redis: {condition: service_healthy}", "reddis: {condition: service_healthy}", "reddis"),
        ("networks: [edge]", "networks: [egde]", "egde"),
        ("- prometheus:/prometheus", "- promtheus:/prometheus", "promtheus"),
        ("replicas: 3", "replicas: three", "replicas"),
    ],
)
def test_compose_would_notice(said: str, fault: str, found: str, tmp_path: Path) -> None:
    code, output = composed(
        planted(tmp_path, name="docker-compose.yml", text=COMPOSE, said=said, fault=fault)
    )
    assert code != 0
    assert found in output


def test_compose_lint_finds_nothing() -> None:
    code, output = confined(ROOT / "docker-compose.yml")
    assert code == 0, output


@pytest.mark.parametrize(
    ("said", "fault", "rule"),
    [
        ("    networks: [edge]\n", "    privileged: true\n", "CL-0002"),
        (
            './deploy/nginx/nginx.conf:/etc/nginx/nginx.conf:ro"',
            '/var/run/docker.sock:/var/run/docker.sock"',
            "CL-0001",
        ),
        ("127.0.0.1:9090:9090", "9090:9090", "CL-0005"),
        ("  cap_drop: [ALL]\n", "", "CL-0006"),
        ('  security_opt: ["no-new-privileges:true"]\n', "", "CL-0003"),
        ("  read_only: true\n", "", "CL-0007"),
        ("memory: 512m, ", "", "CL-0026"),
        ("image: weir-gateway:local", "image: weir-gateway", "CL-0004"),
    ],
)
def test_compose_lint_would_notice(said: str, fault: str, rule: str, tmp_path: Path) -> None:
    code, output = confined(
        planted(tmp_path, name="docker-compose.yml", text=COMPOSE, said=said, fault=fault)
    )
    assert code == 1
    assert rule in output


def test_hadolint_finds_nothing() -> None:
    assert linted(DEPLOY / "Dockerfile") == (0, "")


@pytest.mark.parametrize(
    ("said", "fault", "rule"),
    [
        ("python:3.12-slim", "python", "DL3006"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ('ENTRYPOINT ["weir"]', "ENTRYPOINT weir", "DL3025"),
        ("WORKDIR /source", "WORKDIR source", "DL3000"),
        ("RUN python -m venv", "RUN apt-get install curl && python -m venv", "DL3008"),
        ("COPY service/ service/", "ADD service/ service/", "DL3020"),
    ],
)
def test_hadolint_would_notice(said: str, fault: str, rule: str, tmp_path: Path) -> None:
    code, output = linted(planted(tmp_path, name="Dockerfile", text=DOCKERFILE, said=said, fault=fault))
    assert code != 0
    assert rule in output


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    assert verified(tmp_path, UNIT) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("said", "fault", "found"),
    [
        ("KillMode=mixed", "KillMood=mixed", "KillMood"),
        ("TimeoutStopSec=45s", "TimeoutStopSec=soon", "soon"),
        ("ExecStart=/opt/weir/bin/weir", "ExecStart=/opt/weir/bin/wier", "not executable"),
    ],
)
def test_systemd_would_notice(said: str, fault: str, found: str, tmp_path: Path) -> None:
    assert said in UNIT
    code, output = verified(tmp_path, UNIT.replace(said, fault))
    assert (code, output) != (0, "")
    assert found in output
