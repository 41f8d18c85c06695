"""Wrk: the load by wrk, which asks and measures in C and so leaves the core to the others."""

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks import request
from benchmarks.load import Heard, LoadError

# What wrk counts as status errors are answers of 400 and above. Times are in microseconds.
_SCRIPT = """
wrk.method = "POST"
wrk.path = %(path)s
wrk.headers = {%(headers)s}
local before, after, user = %(before)s, %(after)s, 0

request = function()
  user = (user + 1) %% %(users)d
  return wrk.format(nil, nil, nil, before .. string.format("%%04d", user) .. after)
end

done = function(summary, latency)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '\\n{"answers": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "refused": %%d, "lost": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status, lost))
end
"""


class Wrk:
    """A load by the wrk at `program`, over so many connections."""

    def __init__(self, program: str, *, connections: int) -> None:
        self._program = program
        self._connections = connections

    def __call__(self, url: str, seconds: float) -> Heard:
        """Load the server at `url` for whole seconds, at least one. Raises LoadError."""
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            path = Path(folder) / "load.lua"
            path.write_text(script())
            counts = ["-t1", f"-c{self._connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
            done = subprocess.run(
                [self._program, *counts, "-s", str(path), url], capture_output=True, text=True
            )
        return heard(done.stdout, done.stderr)


def script() -> str:
    """The Lua that asks for each user in turn, and says in JSON what came of it."""
    before, after = request.body(0).decode().split("0000", 1)
    return _SCRIPT % {
        "path": _quoted(request.PATH),
        "headers": ", ".join(
            f"[{_quoted(name)}] = {_quoted(value)}" for name, value in request.HEADERS.items()
        ),
        "before": _quoted(before),
        "after": _quoted(after),
        "users": request.USERS,
    }


def heard(output: str, errors: str) -> Heard:
    """What the script's last line says. Raises LoadError where there is none."""
    lines = [line for line in output.splitlines() if line.startswith('{"answers"')]
    if not lines:
        raise LoadError(f"wrk said: {errors.strip() or output.strip()}")
    return Heard(**json.loads(lines[-1]))


def _quoted(text: str) -> str:
    """A text as Lua writes it: as JSON does, where it is printable ASCII."""
    return json.dumps(text)
