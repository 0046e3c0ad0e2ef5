# %% [markdown]
# # A walk through the lab
# Open this file in an editor that knows `# %%` cells (VS Code, PyCharm, Spyder; jupytext makes a notebook of it), or run it:
# `QUANTBOT_HOME=~/lab python examples/walkthrough.py`. Any home with runs will do: `make demo` makes them.

# %% Connect: the catalog is one DuckDB file, opened read-only; a sync never disturbs it.
from typing import Any

import altair as alt
import duckdb
import pyarrow as pa

from quantbot_pipeline import Home
from quantbot_pipeline.reports.leaderboard import leaderboard
from quantbot_pipeline.reports.searches import walk_forward

home = Home()  # QUANTBOT_HOME, or the current directory
con = duckdb.connect(str(home.catalog.path), read_only=True)


def ask(sql: str, **values: Any) -> pa.Table:
    """A query's rows; values travel as parameters, never in the text."""
    return con.sql(sql, params=values or None).to_arrow_table()


# %% What is there? Runs by type; the newest of each month and configuration are in `latest_runs`.
print(
    ask(
        "SELECT run_type, count(*) AS runs, min(month) AS first, max(month) AS last FROM latest_runs GROUP BY 1 ORDER BY 1"
    ).to_pylist()
)

# %% Who has an edge? The report behind `quantbot leaderboard` reads verified files; the first row has the strongest verdict.
callers = leaderboard(home.catalog)
first = callers[0]
print(f"{first['caller_name']}: {first['verdict']}, e {first['e_value']:.2f} of {first['e_threshold']:.1f}")

# %% How little do a few calls prove? The interval of a rate, here as counted.
from quantbot_pipeline.evidence.intervals import wilson

intervals = {c["caller_name"]: wilson(round(c["hit_2x_rate"] * c["calls"]), c["calls"]) for c in callers}
low, high = intervals[first["caller_name"]] or (0.0, 1.0)
print(f"{first['hit_2x_rate']:.0%} of {first['calls']} calls reached 2x, 95% interval: {low:.0%} to {high:.0%}")

# %% What would a rule have earned? Trades join with paths on run and call.
earned = ask(
    """SELECT t.policy_id, count(*) AS trades, avg(t.realized_return_bps) AS avg_bps, avg(t.tail_capture) AS tail_capture
       FROM trades AS t JOIN paths AS p USING (run_id, call_id) JOIN latest_runs USING (run_id)
       WHERE run_type = 'full' AND p.caller_name = $caller GROUP BY 1 ORDER BY 3 DESC""",
    caller=first["caller_name"],
)
print(earned.to_pylist()[0])

# %% Did the search's choice hold up on calls that it had not seen?
choices = [row for row in walk_forward(home.catalog) if row["trades"] and row["scheme"] == "anchored"]
kept = [row["caller_name"] for row in choices if row["out_of_sample_avg_bps"] >= row["in_sample_avg_bps"]]
print(f"{len(kept)} of {len(choices)} earned what was promised")

# %% See it: return against stop-outs of every policy of a month. In a notebook the last line draws it.
month = ask("SELECT max(month) AS month FROM latest_runs WHERE run_type = 'full'")["month"][0].as_py()
points = ask(
    """SELECT policy_id, stop_out_rate, median_return_bps, meets_constraints FROM frontier JOIN latest_runs USING (run_id)
       WHERE run_type = 'full' AND month = $month AND caller_name = '__all__'""",
    month=month,
)
chart = (
    alt.Chart(alt.Data(values=points.to_pylist()), title=f"All callers, {month}")
    .mark_point(filled=True)
    .encode(x="stop_out_rate:Q", y="median_return_bps:Q", color="meets_constraints:N", tooltip=["policy_id:N"])
)
chart

# %% Where does a number come from? Row, run, manifest: configuration, inputs, code.
origin = ask(
    "SELECT run_dir, config_hash, git_commit FROM latest_runs WHERE run_type = 'full' ORDER BY month DESC LIMIT 1"
).to_pylist()[0]
print(sorted(path.name for path in (home.runs.folder / origin["run_dir"]).iterdir()))
con.close()
