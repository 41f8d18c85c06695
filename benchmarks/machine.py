"""Machine: which cores there are for whom, and what Linux has counted of a process and its children."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PARENT, _USER, _SYSTEM = 1, 11, 12  # in /proc/PID/stat after the name (proc_pid_stat(5))


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of what is measured, and those of everything else; empty where there are too few."""

    measured: frozenset[int]
    others: frozenset[int]


def cores() -> Cores:
    """The first core for what is measured, and all others for the load, the model and the store."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(frozenset(), frozenset())
    first, *rest = sorted(os.sched_getaffinity(0))
    return Cores(frozenset([first]), frozenset(rest)) if rest else Cores(frozenset(), frozenset())


def pin(pid: int, to: frozenset[int]) -> None:
    """Keep a process, and all it will start, on these cores; 0 is this process."""
    if to:
        os.sched_setaffinity(pid, to)


def model_name(cpuinfo: str) -> str:
    """The CPU's name in the text of /proc/cpuinfo."""
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, "an unknown CPU")


def described() -> str:
    """The machine in a few words."""
    path = _PROC / "cpuinfo"
    name = model_name(path.read_text()) if path.exists() else "an unknown CPU"
    return f"{os.cpu_count()} cores, {name}"


def cpu_seconds(root: int) -> float | None:
    """CPU time that a process and all that descend from it have used; None where nobody counts."""
    if not _PROC.is_dir():
        return None
    ticks = sum(user + system for _, user, system in _family(root))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_megabytes(root: int) -> float | None:
    """The sum of the most memory each of them ever held (pages they share count for each)."""
    if not _PROC.is_dir():
        return None
    return sum(_peak(pid) for pid, _, _ in _family(root)) / 1024


def _family(root: int) -> Iterator[tuple[int, int, int]]:
    """The pid, user and system ticks of a process and of all that descend from it."""
    found = {pid: (parent, user, system) for pid, parent, user, system in _processes()}
    for pid, (_, user, system) in found.items():
        ancestor = pid
        while ancestor != root and ancestor in found:
            ancestor = found[ancestor][0]
        if ancestor == root:
            yield pid, user, system


def _processes() -> Iterator[tuple[int, int, int, int]]:
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        yield int(path.parent.name), int(fields[_PARENT]), int(fields[_USER]), int(fields[_SYSTEM])


def _peak(pid: int) -> int:
    """In kilobytes."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
