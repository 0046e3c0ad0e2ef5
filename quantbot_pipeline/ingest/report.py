"""What an ingest did, in numbers that add up: rows = inserted + updated + unchanged + superseded + rejected."""

from pydantic import BaseModel, Field

from quantbot_pipeline.errors import InputError


class IngestReport(BaseModel):
    """Counts of one ingest; `rejected` by reason, `months` the partitions that changed.

    `no_liquidity` counts calls whose liquidity is no amount and stays empty. `left_out` counts what never became a row (files of another kind, messages that are no calls), by reason. `notes` are
    sentences that the reader of the report must know. `store` is what the rows went into. `refusal` is the sentence for an
    ingest that rejected every row; see `require_some`.
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
    no_liquidity: int = 0
    notes: list[str] = Field(default_factory=list)
    store: str = ""
    refusal: str = ""

    def require_some(self) -> "IngestReport":
        """Return the report. Raises InputError where every row was rejected: the rejected rows are kept all the same."""
        if self.refusal:
            raise InputError(self.refusal)
        return self
