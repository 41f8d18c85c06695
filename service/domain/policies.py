"""Policies: as the definition writes them, and the policy each becomes."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.domain.account import Algorithm
from service.domain.api import Percent, Window, kebab
from service.domain.policy import MOST, Count, OnLedgerFailure, Policy, Reserve


class PolicyOptions(BaseModel):
    """One policy, as the definition writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=kebab)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    per: tuple[Literal["credential", "user", "model"], ...]
    limit: Annotated[int, Field(ge=1, le=MOST)]
    window: Window | None = None
    count: Count = Count.TOTAL
    algorithm: Literal["leaky-bucket", "fixed-window"] | None = None
    burst: Percent = 0
    enforce: bool = True
    reserve: Reserve = Reserve.DECLARED
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.REFUSE

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.count is Count.CONCURRENT and (self.window or self.algorithm):
            raise ValueError("expected neither window nor algorithm beside count: concurrent-requests")
        if self.count is not Count.CONCURRENT and not self.window:
            raise ValueError("expected a window such as 1m, as count is not concurrent-requests")
        return self

    def policy(self) -> Policy:
        """The policy it describes."""
        concurrent = self.count is Count.CONCURRENT
        return Policy(
            name=self.name,
            per=tuple(sorted(set(self.per))),
            limit=self.limit,
            window=self.window or 0,
            count=self.count,
            algorithm=Algorithm.CONCURRENCY if concurrent else Algorithm(self.algorithm or "leaky-bucket"),
            burst=self.burst,
            enforce=self.enforce,
            reserve=self.reserve,
            on_ledger_failure=self.on_ledger_failure,
        )
