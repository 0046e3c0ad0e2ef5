"""`quantbot runs`: what is written about a run is found again, and two runs are compared."""

from pathlib import Path

import duckdb
import pytest

from quantbot_pipeline import Home
from quantbot_pipeline_tests.conftest import Quantbot

STOP = '{"kind": "fixed_stop", "stop_pct": 0.2, "take_profit_pct": 1}'


@pytest.fixture
def made(quantbot: Quantbot) -> list[str]:
    """Ids of policy runs of January and February, and of one of January with another latency."""
    one = quantbot("backtest", "policy", "--from", "2024-01", "--to", "2024-02", "--policy", STOP, "--format", "json")
    late = quantbot(
        *("backtest", "policy", "--from", "2024-01", "--to", "2024-01", "--policy", STOP),
        *("--latency-ms", 900_000, "--format", "json"),
    )
    return [run["run_id"] for run in (*one.json(), *late.json())]


def test_what_is_written_about_a_run_is_found_in_every_place(quantbot: Quantbot, home: Path, made: list[str]) -> None:
    january, _, late = made
    assert quantbot("runs", "name", late, "late-entry").status == 0
    assert quantbot("runs", "tag", "late-entry", "slow", "try").status == 0
    done = quantbot("runs", "note", late[:8], "=fifteen minutes")
    assert f"run {late}: name late-entry, tags slow, try, note '=fifteen minutes'" in done.err
    assert "run " + january in quantbot("runs", "name", january, "late-entry", "--move").err
    quantbot("runs", "name", "late-entry", "on-time")
    query = ("backtest", "catalog-query", "--format", "json")
    assert [row["run_id"] for row in quantbot(*query, "--tag", "slow").json()] == [late]
    (row,) = quantbot(*query, "--name", "on-time").json()
    assert (row["run_id"], row["kind"], row["tags"]) == (january, "policy", None)
    # A rebuilt catalog says the same, and the run's own page, SQL and Python do.
    before = quantbot(
        "query", "SELECT run_id, name, note, tags FROM backtest_runs_catalog ORDER BY ALL", "--format", "csv"
    )
    assert quantbot("backtest", "catalog-sync", "--rebuild").status == 0
    after = quantbot(
        "query", "SELECT run_id, name, note, tags FROM backtest_runs_catalog ORDER BY ALL", "--format", "csv"
    )
    assert before.out == after.out and "'=fifteen minutes" in after.out
    run = Home(home).run(late)
    assert (run.name, run.note, run.tags) == (None, "=fifteen minutes", ("slow", "try"))
    assert "slow, try" in quantbot("runs", "show", late).err
    assert quantbot("backtest", "verify").status == 0
    quantbot("runs", "tag", late, "slow", "--remove")
    assert quantbot(*query, "--tag", "slow").json() == []


def test_two_runs_differ_in_what_was_changed(quantbot: Quantbot, made: list[str]) -> None:
    january, _, late = made
    done = quantbot("runs", "diff", january, late, "--format", "json")
    found = {(row["part"], row["name"]): row for row in done.json()}
    latency = found.pop(("parameters", "latency_ms"))
    assert (latency["a"], latency["b"], latency["change"]) == (60_000, 900_000, 840_000)
    assert {part for part, _ in found} == {"results"}
    months = quantbot("runs", "diff", "2024-01", "2024-02", "--kind", "policy", "--format", "json").json()
    assert {"month", "fingerprint"} <= {row["name"] for row in months if row["part"] == "inputs"}
    same = quantbot("runs", "diff", january, january)
    assert same.status == 0 and "they differ in nothing" in same.err


def test_a_deleted_run_is_set_aside_and_the_newest_is_kept(quantbot: Quantbot, home: Path, made: list[str]) -> None:
    late = made[2]
    assert "--force" in quantbot("runs", "delete", late).complaint
    done = quantbot("runs", "delete", late, "--force")
    assert done.status == 0
    assert [path.name for path in home.glob("runs/.trash/*/*")] == [f"run_id={late}"]
    assert "set aside" in quantbot("runs", "show", late).complaint
    assert "nobody" in quantbot("runs", "tag", "nobody", "x").complaint


def test_a_catalog_of_an_earlier_version_answers_and_is_made_anew(
    quantbot: Quantbot, home: Path, made: list[str]
) -> None:
    with duckdb.connect(str(home / "data" / "backtest_catalog.duckdb")) as con:
        con.execute("UPDATE catalog_meta SET value = '2' WHERE key = 'version'")
        for column in ("name", "note", "tags"):
            con.execute(f"ALTER TABLE backtest_runs_catalog DROP COLUMN {column}")
    assert len(quantbot("backtest", "catalog-query", "--format", "json").json()) == len(made)
    assert quantbot("runs", "tag", made[0], "first").status == 0
    (row,) = quantbot("backtest", "catalog-query", "--tag", "first", "--format", "json").json()
    assert (row["run_id"], row["tags"]) == (made[0], "first")
