"""Scores that were kept: what models said of calls when these arrived, month by month, in `data/scores/`.

Belongs here: the files, and adding to one. Does not: scoring. A call is scored once per target; what was said first stays.
"""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantbot_pipeline.backtest.scoring import SCORES
from quantbot_pipeline.durable import locked, replacing
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_of

if TYPE_CHECKING:
    from pathlib import Path


def scores_file(home: Home, month: str) -> "Path":
    """Return where the scores of calls of a month lie."""
    return home.settings.data_dir / "scores" / f"{month}.parquet"


def kept_scores(home: Home, month: str | None = None) -> pa.Table:
    """Return the kept scores of a month, or of all, by month and in the order in which they came. Raises IntegrityError for a broken file."""
    folder = home.settings.data_dir / "scores"
    files = sorted(folder.glob("????-??.parquet")) if month is None else [scores_file(home, month)]
    return pa.concat_tables([SCORES.empty_table(), *(_read(file) for file in files if file.exists())])


def add_scores(home: Home, scores: pa.Table) -> int:
    """Add scores to the files of their calls' months; return how many were new. Other writers wait; readers see whole files."""
    added = 0
    months = [month_of(at) for at in scores["alert_ts_ms"].to_pylist()]
    folder = home.settings.data_dir / "scores"
    with locked(folder / ".lock", home.settings.lock_timeout_s):
        for month in sorted(set(months)):
            own = scores.filter(pa.array([m == month for m in months]))
            file = scores_file(home, month)
            before = _read(file) if file.exists() else SCORES.empty_table()
            known = set(zip(before["call_id"].to_pylist(), before["target"].to_pylist(), strict=True))
            pairs = zip(own["call_id"].to_pylist(), own["target"].to_pylist(), strict=True)
            new = own.filter(pa.array([pair not in known for pair in pairs], pa.bool_()))
            if not new.num_rows:
                continue
            with replacing(file) as temporary:
                pq.write_table(pa.concat_tables([before, new]), temporary, write_page_checksum=True, compression="zstd")
            added += new.num_rows
    return added


def unscored(home: Home, calls: pa.Table) -> pa.Table:
    """Return the calls of which no score is kept."""
    months = {month_of(at) for at in calls["alert_ts_ms"].to_pylist()}
    known = pa.chunked_array(
        [kept_scores(home, month)["call_id"].combine_chunks() for month in sorted(months)], pa.string()
    )
    return calls.filter(pc.invert(pc.is_in(calls["call_id"], value_set=known.combine_chunks())))


def _read(file: "Path") -> pa.Table:
    try:
        return pq.ParquetFile(file, page_checksum_verification=True).read().cast(SCORES)
    except (pa.ArrowException, OSError, ValueError) as e:
        raise IntegrityError(f"{file}: not readable ({str(e)[:120]}); remove it, and calls are scored again") from None
