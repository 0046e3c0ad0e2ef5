"""What a caller's page draws of its evidence: e by month, how long a double takes, what size and delay cost.

The verdicts themselves are columns of the leaderboard (`callers.py`).
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.reports.page.encode import Columns, Index, columns
from quantbot_pipeline.reports.remarks import read_each
from quantbot_pipeline.reports.verdicts import Verdicts

MONTH_ROWS = 12_000  # of callers' months; the newest stay
CURVES = 500  # callers whose curves are carried, the first in the order of the verdicts
MONTHLY = ("caller_name", "verdict", "e_value", "e_threshold")
TIMES = {"t_ms": None, "hit_2x": 5, "hit_low": 5, "hit_high": 5, "stop": 5, "silent": 5, "at_risk": None}
COSTS = {"kind": None, "value": None, "units": None, "same_entry": 4, "mean_bps": 1, "se_bps": 1}


def evidence_section(catalog: Catalog, verdicts: Verdicts, callers: Index[str]) -> dict[str, Any]:
    """Every month's e-values, and the curves of the newest month's verdicts; rows refer to `callers` by position."""
    run_dirs = newest_runs_with(catalog, "evidence")
    drawn = [row["caller_name"] for row in verdicts.rows[:CURVES]]
    return {
        "month": verdicts.month,
        "curves": CURVES,
        "months": _months(catalog, run_dirs, callers),
        "times": _curves(catalog, run_dirs[-1:], "evidence_times", TIMES, drawn, callers),
        "costs": _curves(catalog, run_dirs[-1:], "evidence_costs", COSTS, drawn, callers),
    }


def _months(catalog: Catalog, run_dirs: list[str], callers: Index[str]) -> Columns:
    kept: list[pa.Table] = [_nothing("evidence", MONTHLY).append_column("month", pa.array([], pa.string()))]
    left = MONTH_ROWS
    for run_dir in reversed(run_dirs):
        for manifest, table in read_each(catalog, [run_dir], "evidence", MONTHLY):
            part = table.select(MONTHLY)[:left]
            kept.append(part.append_column("month", pa.repeat(pa.scalar(manifest.month), part.num_rows)))
            left -= part.num_rows
        if left == 0:
            break
    rows = pa.concat_tables(kept)
    return {"caller": callers.of_each(rows["caller_name"]).tolist(), **columns(rows.drop_columns(["caller_name"]))}


def _curves(
    catalog: Catalog,
    run_dirs: list[str],
    artifact: str,
    digits: dict[str, int | None],
    drawn: list[str],
    callers: Index[str],
) -> Columns:
    """Return an artifact's rows of the callers that are drawn, rounded to what a picture shows."""
    names = ("caller_name", *digits)
    found = [table.select(names) for _, table in read_each(catalog, run_dirs, artifact, names)]
    rows = pa.concat_tables([_nothing(artifact, names), *found])
    rows = rows.filter(pc.is_in(rows["caller_name"], value_set=pa.array(drawn, pa.string())))
    rounded = {name: n for name, n in digits.items() if n is not None}
    made = columns(rows.drop_columns(["caller_name"]), rounded)
    return {"caller": callers.of_each(rows["caller_name"]).tolist(), **made}


def _nothing(artifact: str, names: tuple[str, ...]) -> pa.Table:
    schema = ARTIFACTS[artifact][1]
    return pa.schema([schema.field(name) for name in names]).empty_table()
