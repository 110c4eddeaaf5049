"""What is written down for each answered tier of each ticket: one row, the same in a stream, a store and a file.

A ticket has one row a tier, from cheap to strong, and exactly one of them is `final`. With a decision it is the ticket's result;
without one it is an error row. Costs of a ticket's rows add up: no row repeats what another one says was paid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workshop_lib.bedrock import errors
from workshop_lib.bedrock.catalogue import Usage
from workshop_lib.bedrock.errors import WorkshopError
from workshop_lib.bedrock.replies import Reply
from workshop_lib.cascade.attempt import Attempt, Outcome, Reason
from workshop_lib.triage.task import Task

if TYPE_CHECKING:
    import pandas

ROW_SCHEMA: Literal["bulk-row-1"] = "bulk-row-1"


class Why(BaseModel):
    """A rule that sent the ticket up, and what it saw."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    rule: str
    detail: str = ""


class RowError(BaseModel):
    """What went wrong at a tier."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    stage: str = Field(description="The tier that failed.")
    type: str = Field(description="Class of the error, e.g. Throttled, InvalidOutput, DeadlineExceeded.")
    message: str = Field(description="What happened.")
    advice: str = Field(description="What to do next.")

    @classmethod
    def of(cls, stage: str, error: WorkshopError) -> RowError:
        """An error of ours, as a row tells it."""
        return cls(stage=stage, type=type(error).__name__, message=error.message, advice=error.advice)


class Row(BaseModel):
    """One tier's part in one ticket."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, defer_build=True)

    version: Literal["bulk-row-1"] = Field(default=ROW_SCHEMA, alias="schema", description="Version of this form.")
    ticket_id: str
    tier: str = Field(description="Name of the tier.")
    model: str = Field(description="Catalogue key of the model that was asked.")
    decision: dict[str, Any] | None = Field(
        description="A final row: the ticket's decision, with flags of lower tiers kept. Else what this tier said; null if it failed."
    )
    final: bool = Field(description="The ticket's last row.")
    escalated: bool = Field(description="Whether the ticket goes, or has gone, above its first tier.")
    reasons: tuple[Why, ...] = Field(
        default=(), description="Why it goes up from this tier; final row: why it went up at all, over all tiers."
    )
    flags: dict[str, str] = Field(
        default_factory=dict, description="Final row: raised flag to the tier that raised it."
    )
    latency_ms: float = Field(description="Model time of this tier, repair turns included.")
    usage: Usage = Field(description="Tokens of this tier's calls.")
    cost_usd: float = Field(description="USD of this tier's calls, unusable answers included.")
    attempts: int = Field(description="HTTP requests of this tier, retries included.")
    error: RowError | None = Field(
        default=None,
        description="Why this tier failed. On a final row with a decision, a lower tier's answer was kept.",
    )
    agreement: float | None = Field(
        default=None,
        description="Where this tier was asked several times: the share of answers that gave this decision.",
    )
    ticket_cost_usd: float = Field(description="USD of all rows of this ticket so far: what was already paid.")

    @property
    def status(self) -> Literal["escalated", "done", "degraded", "failed"]:
        """In one word: goes on, has its answer, has a lower tier's answer because this one failed, has none."""
        if not self.final:
            return "escalated"
        if self.decision is None:
            return "failed"
        return "done" if self.error is None else "degraded"

    def to_json(self) -> str:
        """One NDJSON line, without its newline."""
        return self.model_dump_json(by_alias=True)


def first_row(item_id: str, attempt: Attempt[Any], reasons: Sequence[Reason], *, paid_usd: float) -> Row:
    """The row of a tier that the ticket leaves upwards.

    Args:
        item_id: of the ticket.
        attempt: the tier's.
        reasons: why it goes up.
        paid_usd: by this ticket's earlier rows.
    """
    return _row(item_id, attempt, attempt.decision, paid_usd=paid_usd, final=False, up=True, reasons=reasons)


def final_row(outcome: Outcome[Any], *, paid_usd: float) -> Row:
    """The last row of a ticket.

    Args:
        outcome: of the whole run.
        paid_usd: by this ticket's earlier rows.
    """
    return _row(
        outcome.item_id, outcome.attempts[-1], outcome.decision, paid_usd=paid_usd, final=True, up=outcome.escalated,
        reasons=outcome.reasons, flags=outcome.flags,
    )  # fmt: skip


def dearer(row: Row, cost_usd: float, attempts: int) -> Row:
    """The row with calls added that came to nothing: late answers, and earlier tries of the same tier."""
    return row.model_copy(
        update={
            "cost_usd": row.cost_usd + cost_usd,
            "ticket_cost_usd": row.ticket_cost_usd + cost_usd,
            "attempts": row.attempts + attempts,
        }
    )


def attempt_of(row: Row, task: Task[Any]) -> Attempt[Any]:
    """The attempt that a stored row tells of, to go on from or to judge. One reply, without words, stands for all its calls."""
    decision = None if row.decision is None else task.schema.model_validate(row.decision)
    replies: tuple[Reply, ...] = ()
    if row.cost_usd or row.usage != Usage():
        said = {"role": "assistant", "content": list[Any]()}
        replies = (Reply(row.model, "", said, "", row.usage, row.cost_usd, row.latency_ms, 0.0, row.attempts),)
    return Attempt(row.tier, row.model, task, decision, _error_of(row.error), replies, row.attempts, row.agreement)


def _error_of(told: RowError | None) -> WorkshopError | None:
    if told is None:
        return None
    kind = getattr(errors, told.type, WorkshopError)
    known = isinstance(kind, type) and issubclass(kind, WorkshopError)
    return (kind if known else WorkshopError)(told.message, advice=told.advice)


def to_frame(rows: Iterable[Row]) -> pandas.DataFrame:
    """Rows as a table: one column a field, `decision.category` and its like for the parts of a decision and of usage."""
    import pandas as pd

    dumped = [row.model_dump(mode="json", by_alias=True) for row in rows]
    return pd.json_normalize([{k: {} if v is None else v for k, v in row.items()} for row in dumped], max_level=1)


def _row(
    item_id: str, attempt: Attempt[Any], decision: BaseModel | None, *, paid_usd: float, final: bool, up: bool,
    reasons: Sequence[Reason] = (), flags: Mapping[str, str] | None = None,
) -> Row:  # fmt: skip
    error = attempt.error
    return Row(
        ticket_id=item_id,
        tier=attempt.tier,
        model=attempt.model,
        decision=None if decision is None else decision.model_dump(mode="json"),
        final=final,
        escalated=up,
        reasons=tuple(Why(rule=r.rule, detail=r.detail) for r in reasons),
        flags=dict(flags or {}),
        latency_ms=attempt.latency_ms,
        usage=attempt.usage,
        cost_usd=attempt.cost_usd,
        attempts=attempt.http_attempts,
        error=None if error is None else RowError.of(attempt.tier, error),
        agreement=attempt.agreement,
        ticket_cost_usd=paid_usd + attempt.cost_usd,
    )
