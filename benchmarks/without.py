"""Without: runs a module as if a package were not installed.

What `pip install starlette uvicorn httpx` brings has no sniffio, which httpcore looks for again at every
lock. `python -m benchmarks.without sniffio MODULE ARGUMENT ...` shows what that costs.
"""

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class Hidden:
    """A finder that looks for one package under a name nobody has: as long, and in vain."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What PathFinder finds, which in place of this one does the looking."""
        return PathFinder.find_spec(f"no-{name}" if name == self._package else name, path, target)


def hide(package: str) -> None:
    """Make this process one in which a package is not installed."""
    sys.meta_path[:] = [Hidden(package) if finder is PathFinder else finder for finder in sys.meta_path]


if __name__ == "__main__":
    package, module, *sys.argv[1:] = sys.argv[1:]
    hide(package)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
