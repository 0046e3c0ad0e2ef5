"""The tear sheet as one HTML file: what travels to the browser, and where it is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quantbot_pipeline.home import Home
from quantbot_pipeline.months import iso_now
from quantbot_pipeline.replay.statistics import STAKE
from quantbot_pipeline.reports.describe import describe
from quantbot_pipeline.reports.page import html
from quantbot_pipeline.reports.page.candles import read_windows, span_of_call
from quantbot_pipeline.reports.page.drawing import specifications
from quantbot_pipeline.reports.page.encode import Columns, columns
from quantbot_pipeline.reports.tearsheet.charts import charts
from quantbot_pipeline.reports.tearsheet.meaning import FIGURES
from quantbot_pipeline.reports.tearsheet.sheet import TearSheet, calls_of
from quantbot_pipeline.version import __version__

SOURCES = html.Sources(
    "quantbot_pipeline.reports.tearsheet",
    "Tear sheet",
    "#main",
    ("evidence.js", "sparks.js", "tearsheet.js"),
    ("style.css", "sheet.css"),
)
BARS = 48  # of a call's picture
PICTURES = 1_500  # calls with a picture: the newest, about 700 bytes each
EXTREMES = 3  # best and worst calls shown large
CALL_COLUMNS = (
    "call_id", "caller_name", "mint", "chain", "month", "alert_ts_ms", "entry_ts_ms", "peak_multiple", "dd_bps", "t_2x_ms", "observed_ms",
    "censored", "traded", "policy_id", "exit_ts_ms", "exit_reason", "realized_return_bps",
)  # fmt: skip  # a table: what belongs together stands on one line


def render(sheet: TearSheet, home: Home) -> str:
    """Return the page of a sheet; single calls have no pictures where the candle store lacks their windows."""
    return html.render(SOURCES, page_data(sheet, home.candles.folder), specifications("tearsheet", charts))


def page_data(sheet: TearSheet, candles: Path) -> dict[str, Any]:
    """Return everything the page shows. `callers`, `names` and `evidence` lie as on the dashboard, whose scripts draw them."""
    found = sheet.gathered
    return {
        "built_at": iso_now(),
        "version": __version__,
        "caller": sheet.caller,
        "policy_id": sheet.policy_id,
        "policy_words": _words(sheet),
        "scheme": sheet.scheme,
        "stake": STAKE,
        "verdict": sheet.verdict,
        "remarks": found.remarks,
        "row": _judged(found.evidence),
        "figures": [{**figure._asdict(), "value": sheet.figures[figure.name]} for figure in FIGURES],
        "days": columns(sheet.days, {"equity": 5, "drawdown": 5, "low": 5, "high": 5}),
        "months": sheet.months,
        "bins": sheet.bins,
        "quantiles": sheet.quantiles,
        "evidence": {
            "month": found.verdicts.month,
            "curves": 1,
            "months": _of_caller(found.monthly, ("verdict", "e_value", "e_threshold", "month")),
            "times": _of_caller(found.times, ("t_ms", "hit_2x", "hit_low", "hit_high", "stop", "silent", "at_risk")),
            "costs": _of_caller(found.costs, ("kind", "value", "units", "same_entry", "mean_bps", "se_bps")),
        },
        **_calls(sheet, candles),
        "runs": [
            {"month": m.month, "run_id": m.run_id, "config_hash": m.parameters.get("config_hash")} for m in found.runs
        ],
    }


def _judged(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a row of the evidence as the scripts of the dashboard know it: its caller is 0, its tokens are `unit_mints`."""
    from quantbot_pipeline.evidence.wording import said

    return None if row is None else row | {"caller": 0, "unit_mints": row["mints"], "verdict": said(row)}


def _of_caller(table: pa.Table, names: tuple[str, ...]) -> Columns:
    return {"caller": [0] * table.num_rows, **columns(table.select(names))}


def _words(sheet: TearSheet) -> str | None:
    """Return a policy in words, where the runs say what it is made of."""
    for manifest in sheet.gathered.runs if sheet.policy_id else ():
        for policy in manifest.parameters.get("policies") or ():
            from quantbot_pipeline.replay.policies import parse_policy, policy_id

            parsed = parse_policy(policy)
            if policy_id(parsed) == sheet.policy_id:
                return describe(parsed)
    return sheet.policy_id


def _calls(sheet: TearSheet, candles: Path) -> dict[str, Any]:
    """Return every call with its trade, the newest with pictures, and which are the best and the worst."""
    table = calls_of(sheet)
    rows = table.to_pylist()
    first = max(0, len(rows) - PICTURES)
    returns = np.array([np.nan if row["realized_return_bps"] is None else row["realized_return_bps"] for row in rows])
    order = [int(i) for i in np.argsort(returns, kind="stable")[: int(np.isfinite(returns).sum())]]
    worst, best = order[:EXTREMES], order[::-1][:EXTREMES]
    drawn = sorted({*range(first, len(rows)), *worst, *best})
    windows = read_windows(candles, [span_of_call(rows[i]) for i in drawn], BARS)
    pictures = {i: _picture(rows[i], window) for i, window in zip(drawn, windows, strict=True) if window is not None}
    kept = table.select([name for name in CALL_COLUMNS if name in table.column_names])
    return {
        "calls": columns(kept, {"peak_multiple": 4, "dd_bps": 1}),
        "pictures": [pictures.get(i) for i in range(len(rows))],
        "pictured": len(rows) - first,
        "best": best,
        "worst": worst,
    }


def _picture(call: dict[str, Any], window: Columns) -> dict[str, Any]:
    """Return a call's window as a small picture needs it: hours of the first bar, its width, and prices in multiples."""
    made: dict[str, Any] = {"hours": window["hours"], "width": window["width"][0]}
    made |= {name: [float(f"{v:.3g}") for v in window[name]] for name in ("high", "low", "close")}
    if call["traded"]:
        made["exit"] = [
            round((call["exit_ts_ms"] - call["entry_ts_ms"]) / 3_600_000, 3), float(f"{call['exit_px'] / call['p0']:.4g}")
        ]  # fmt: skip  # a pair
    return made
