"""What a run says about itself while it is made: phases, log lines and the rows of errors.parquet."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ERRORS
from quantbot_pipeline.months import iso_now
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.manifest import Timing

log = logging.getLogger(__name__)


@dataclass
class Record:
    """What a run says about itself while it is made: phases, log lines and the rows of errors.parquet."""

    started_at: str = field(default_factory=iso_now)
    started: float = field(default_factory=time.perf_counter)
    timing: dict[str, float] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    excluded: Callable[[], Iterator[list[dict[str, Any]]]] = lambda: iter(())  # rows before `errors`, made when written
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def say(self, text: str) -> None:
        self.out.append(f"{iso_now()} {text}")
        log.debug(text)

    def add(self, name: str, seconds: float) -> None:
        """Add to a phase what was measured elsewhere."""
        self.timing[f"{name}_ms"] = self.timing.get(f"{name}_ms", 0.0) + seconds * 1e3

    def report(
        self, level: str, phase: str, message: str, *, call_id: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.errors.append(self.error(level, phase, message, call_id=call_id, details=details))

    def error(
        self, level: str, phase: str, message: str, *, call_id: str | None = None, details: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A row of errors.parquet."""
        text = None if details is None else json.dumps(details, sort_keys=True, ensure_ascii=False)
        return {
            "timestamp": self.started_at,
            "level": level,
            "phase": phase,
            "call_id": call_id,
            "message": message,
            "details": text,
        }

    def write_errors(self, staged: StagedRun) -> None:
        """Write errors.parquet and note its rows for the log; a month can leave out most of its calls, so piece by piece."""
        schema = pa.schema([f for f in ERRORS if f.name != "run_id"])
        with staged.writing("errors") as errors:
            for rows in chain(self.excluded(), [self.errors]):
                errors.add(pa.Table.from_pylist(rows, schema=schema))
                told = [row for row in rows if row["level"] != "info"]
                lines = (f"{iso_now()} {r['level']} {r['phase']} {r['call_id'] or '-'} {r['message']}\n" for r in told)
                self.err.append("".join(lines))

    def total(self) -> Timing:
        return Timing(**self.timing, total_ms=(time.perf_counter() - self.started) * 1e3)
