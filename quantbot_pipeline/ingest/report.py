"""What an ingest did, in numbers that add up: rows = inserted + updated + unchanged + superseded + rejected."""

from pydantic import BaseModel


class IngestReport(BaseModel):
    """Counts of one ingest; `rejected` by reason, `months` the partitions that changed."""

    kind: str
    files: int
    rows: int
    inserted: int
    updated: int
    unchanged: int
    superseded: int
    rejected: dict[str, int]
    months: list[str]
