"""What an ingest did, in numbers that add up: rows = inserted + updated + unchanged + superseded + rejected."""

from pydantic import BaseModel, Field


class IngestReport(BaseModel):
    """Counts of one ingest; `rejected` by reason, `months` the partitions that changed.

    `left_out` counts what never became a row (files of another kind, messages that are no calls), by reason. `notes` are
    sentences that the reader of the report must know. `store` is what the rows went into.
    """

    kind: str
    files: int
    rows: int
    inserted: int
    updated: int
    unchanged: int
    superseded: int
    rejected: dict[str, int]
    months: list[str]
    left_out: dict[str, int] = Field(default_factory=dict)
    freak_wicks: int = 0
    notes: list[str] = Field(default_factory=list)
    store: str = ""
