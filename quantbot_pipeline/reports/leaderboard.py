"""The leaderboard: how sure each caller's edge is, and what followed its calls over the newest run of every month.

Belongs here: which columns there are, their order, and how a row reads on a terminal. A caller without a verdict is not ranked.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import FRONTIER
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.duck import database_of
from quantbot_pipeline.evidence.wording import figure, is_untested, said
from quantbot_pipeline.months import iso_ms
from quantbot_pipeline.reports.remarks import ended_remarks, load_newest, read_each, remarks
from quantbot_pipeline.reports.verdicts import Verdicts, newest_verdicts, verdict_remarks
from quantbot_pipeline.vocabulary import SCHEMES

# Of the artifact `evidence`; `unit_mints` is its `mints`, and `month` that of its run.
JUDGED = (
    "verdict",
    "e_value",
    "e_threshold",
    "units",
    "unit_mints",
    "choice_mean_bps",
    "choice_low_bps",
    "choice_high_bps",
    "hit_2x_shrunk",
    "hit_2x_low",
    "hit_2x_high",
    "hit_2x",
    "median_ms_to_2x",
    "break_even_share",
    "break_even_latency_ms",
    "flags",
    "calls_needed",
    "towards",
    "month",
)
# Of the newest run of every month that measured the calls.
FOLLOWED = (
    "calls",
    "mints",
    "last_call",
    "data_end_share",
    "hit_2x_rate",
    "hit_3x_rate",
    "hit_4x_rate",
    "median_peak_multiple",
    "median_dd_bps",
    "median_min_to_2x",
    "stressed_avg_return_bps",
)
COLUMNS = ("caller_name", *JUDGED, "trend", *FOLLOWED)
TREND_MONTHS = 12
BLOCKS = "▁▂▃▄▅▆▇"
BELOW = "too few to test:"  # what stands on the line below which such callers are
FIRST = ("caller_name", "verdict", "choice bps [95%]", "calls", "last_call", "trend")  # what answers the question
# Of FOLLOWED on a terminal, which is narrow.
PRINTED = ("data_end_share", "hit_2x_rate", "median_peak_multiple", "median_dd_bps", "stressed_avg_return_bps")


def leaderboard(catalog: Catalog, interval: str | None = None) -> list[dict[str, Any]]:
    """One row per caller: the newest month's verdicts in their order, then by name the callers without one.

    Rates lie in [0, 1], returns and drawdowns are in bps, times in the unit of their names.
    """
    followed = what_followed(load_newest(catalog, "paths", interval=interval), first_policies(catalog, interval))
    walked = load_newest(catalog, "walk_forward", interval=interval)
    return in_order(newest_verdicts(catalog, interval), followed, trends(walked))


def leaderboard_remarks(catalog: Catalog, rows: Sequence[dict[str, Any]], interval: str | None = None) -> list[str]:
    """Return what a reader of the leaderboard must know of it and of the runs behind it."""
    of_runs = remarks(catalog, "paths", interval=interval)
    return of_runs + verdict_remarks(catalog, rows, interval) + ended_remarks(rows)


def in_order(verdicts: Verdicts, followed: dict[str, dict[str, Any]], trend: dict[str, str]) -> list[dict[str, Any]]:
    """Return the leaderboard of these verdicts, of what followed each caller's calls, and of its last months."""
    judged = {row["caller_name"]: row for row in verdicts.rows}
    others = sorted(followed.keys() - judged.keys(), key=str.encode)
    nothing = dict.fromkeys(FOLLOWED)
    rows = [
        {"caller_name": name, **_judged(row, verdicts.month), "trend": trend.get(name), **followed.get(name, nothing)}
        for name, row in judged.items()
    ]
    unjudged = dict.fromkeys(JUDGED)
    return rows + [{"caller_name": name, **unjudged, "trend": trend.get(name), **followed[name]} for name in others]


def _judged(row: dict[str, Any], month: str | None) -> dict[str, Any]:
    named = row | {"verdict": said(row), "unit_mints": row["mints"], "month": month}
    return {name: named[name] for name in JUDGED}


def trends(walk_forward: pa.Table) -> dict[str, str]:
    """Return each caller's last months as one text: what the anchored choice returned in the mean, a block a month.

    The blocks are of one caller's own scale, the middle one is 0; a dot is a month without a trade.
    """
    columns = ("scheme", "caller_name", "month", "out_of_sample_trades", "out_of_sample_avg_return_bps")
    rows = [
        row for row in zip(*(walk_forward[name].to_pylist() for name in columns), strict=True) if row[0] == SCHEMES[0]
    ]
    newest = sorted({month for _, _, month, _, _ in rows})[-TREND_MONTHS:]
    found: dict[str, dict[str, float]] = {}
    for _, name, month, trades, mean in rows:
        own = found.setdefault(name, {})
        if trades:
            own[month] = mean
    return {name: _blocks([own.get(month) for month in newest]) for name, own in found.items()}


def _blocks(values: Sequence[float | None]) -> str:
    most = max((abs(v) for v in values if v is not None), default=0.0) or 1.0
    middle = (len(BLOCKS) - 1) / 2
    return "".join("·" if v is None else BLOCKS[round(middle + middle * v / most)] for v in values)


def first_policies(catalog: Catalog, interval: str | None = None) -> pa.Table:
    """Return each caller's first policy of each month's newest search: caller_name, trades, stressed_avg_return_bps.

    A search has hundreds of policies for each caller, so only these rows of a month are kept.
    """
    schema = pa.schema([FRONTIER.field(name) for name in ("caller_name", "trades", "stressed_avg_return_bps")])
    run_dirs = newest_runs_with(catalog, "frontier", interval=interval, strategy_id="grid-search")
    found: list[dict[str, Any]] = []
    for _, table in read_each(catalog, run_dirs, "frontier", (*schema.names, "rank")):
        first = (table["rank"].to_numpy() == 1).nonzero()[0].tolist()  # pyarrow's own filter takes 0.1 s to import
        found += [{name: table[name][i].as_py() for name in schema.names} for i in first]
    return pa.Table.from_pylist(found, schema)


def what_followed(paths: pa.Table, first: pa.Table) -> dict[str, dict[str, Any]]:
    """Return what followed each caller's calls, from these rows of the artifact `paths` and these first policies.

    data_end_share: of the calls whose candles end before the window does. stressed_avg_return_bps: the mean return of the
    caller's first policy of each month, such trades valued at a total loss; null without a search.
    """
    with database_of(newest_paths=paths, first_policies=first) as con:
        rows = (
            con.sql(
                """WITH stressed AS (
                       SELECT caller_name, sum(stressed_avg_return_bps * trades) / sum(trades) AS mean
                       FROM first_policies GROUP BY 1)
                   SELECT caller_name, count(*) AS calls, count(DISTINCT mint) AS mints, max(alert_ts_ms) AS last_call,
                          avg(censored::INT) AS data_end_share, avg(hit_2x::INT) AS hit_2x_rate,
                          avg(hit_3x::INT) AS hit_3x_rate, avg(hit_4x::INT) AS hit_4x_rate,
                          median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps,
                          median((t_2x_ms - alert_ts_ms) / 60000.0) AS median_min_to_2x,
                          any_value(stressed.mean) AS stressed_avg_return_bps
                   FROM newest_paths LEFT JOIN stressed USING (caller_name) GROUP BY 1 ORDER BY caller_name"""
            )
            .to_arrow_table()
            .to_pylist()
        )
    return {row.pop("caller_name"): row | {"last_call": iso_ms(row["last_call"])} for row in rows}


# --- as people read it ------------------------------------------------------------------------------------------------


def for_people(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as people see them: what belongs together in one cell, rounded; a lucky few never lead.

    Callers with too few calls or tokens to be tested come below a line, those without a verdict below them.
    """
    ranked = sorted(rows, key=_place)
    shown = [_row_for_people(row) for row in ranked]
    first = next((i for i, row in enumerate(ranked) if _place(row) == 1), None)
    if first:  # none is on top of nothing
        shown.insert(first, dict.fromkeys(shown[0]) | {"caller_name": BELOW})
    return shown


def _place(row: dict[str, Any]) -> int:
    return 2 if row["verdict"] is None else int(is_untested(row))


def _row_for_people(row: dict[str, Any]) -> dict[str, Any]:
    judged = row["verdict"] is not None
    latency, double, share = row["break_even_latency_ms"], row["median_ms_to_2x"], row["break_even_share"]
    return {
        "caller_name": row["caller_name"],
        "verdict": row["verdict"],
        "choice bps [95%]": _between("{:,.0f}", *(row[f"choice_{name}_bps"] for name in ("mean", "low", "high"))),
        "calls": row["calls"],
        "last_call": None if row["last_call"] is None else row["last_call"][:10],
        "trend": row["trend"],
        "e / threshold": f"{figure(row['e_value'])} / {figure(row['e_threshold'])}" if judged else None,
        "units / mints": f"{row['units']:,} / {row['unit_mints']:,}" if judged else None,
        "2x rate [95%]": _between("{:.1%}", *(row[f"hit_2x_{name}"] for name in ("shrunk", "low", "high"))),
        "2x hits": row["hit_2x"],
        "median time of hits": None if double is None else _duration(double),
        "break-even share": None if share is None else f"{share:.2%}",
        "break-even latency": None if latency is None else _duration(latency),
        "flags": row["flags"] or None,
        "towards": row["towards"],
        **{name: row[name] for name in PRINTED},
    }


def _between(form: str, mean: float | None, low: float | None, high: float | None) -> str | None:
    if mean is None or low is None or high is None:
        return None
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"


def _duration(ms: float) -> str:
    minutes = ms / 60_000
    return f"{minutes:.3g} min" if minutes < 120 else f"{minutes / 60:.1f} h"
