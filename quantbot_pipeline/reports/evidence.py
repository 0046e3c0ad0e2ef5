"""The verdicts: how sure each caller's edge is, from the newest month's evidence."""

from typing import Any

import pyarrow as pa

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.vocabulary import VERDICTS

COLUMNS = (
    "caller_name",
    "verdict",
    "e_value",
    "e_threshold",
    "units",
    "mints",
    "choice_mean_bps",
    "choice_low_bps",
    "choice_high_bps",
    "hit_2x",
    "hit_2x_shrunk",
    "hit_2x_low",
    "hit_2x_high",
    "median_ms_to_2x",
    "break_even_share",
    "break_even_latency_ms",
    "flags",
)


def evidence(catalog: Catalog, interval: str | None = None) -> list[dict[str, Any]]:
    """One row per caller of the newest month: evidence first, then inconclusive, then none, each by falling e-value.

    Raises InputError when no month has evidence.
    """
    rows = load_newest(catalog, "evidence", interval=interval)
    if not rows.num_rows:
        raise InputError("no evidence yet; run `quantbot backtest evidence` over your months, then `catalog-sync`")
    return in_order(rows)


def in_order(rows: pa.Table) -> list[dict[str, Any]]:
    """Return the newest month's rows in the order in which they are shown, with the verdict in words."""
    found = rows.to_pylist()
    newest = max(row["month"] for row in found)
    shown = sorted(
        (row for row in found if row["month"] == newest),
        key=lambda row: (VERDICTS.index(row["verdict"]), -row["e_value"], row["caller_name"].encode()),
    )
    return [
        {"month": row["month"]} | {name: said(row) if name == "verdict" else row[name] for name in COLUMNS}
        for row in shown
    ]


def said(row: dict[str, Any]) -> str:
    """Return a verdict in words, with how many calls it lacks."""
    verdict = str(row["verdict"])
    if verdict != "inconclusive":
        return verdict
    needed = row["calls_needed"]
    return f"{verdict}: no end in sight" if needed is None else f"{verdict}: about {needed:,} more calls"
