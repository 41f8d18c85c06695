"""Wanted: which exchanges an operator asked to see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.domain.globs import Globs


@dataclass(frozen=True, slots=True)
class Wanted:
    """What all must hold; empty where anything does.

    `users` is one user as the log may have it; `status` is one, or such as `5xx`.
    """

    users: frozenset[str] = frozenset()
    status: str = ""
    model: Globs | None = None

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether an exchange is to be seen."""
        return (
            (not self.users or record.get("user") in self.users)
            and (not self.status or self._answered(str(record.get("status"))))
            and (self.model is None or self.model.match(str(record.get("model") or "")))
        )

    def _answered(self, status: str) -> bool:
        return status == self.status or (self.status.endswith("xx") and status[:1] == self.status[:1])
