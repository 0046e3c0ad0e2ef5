"""The table "Where would X go?" holds: a kind of run is a row, a recipe and a schema, and nothing else knows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from quantbot_pipeline_tests.support.labs import CALLS_PER_MONTH

ROW_AND_SCHEMA = '''
"""A made-up kind of run: how long the names of the called tokens are."""

import pyarrow as pa

from quantbot_pipeline import specs
from quantbot_pipeline.artifacts import schemas

NAMES = pa.schema([
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("call_id", pa.string(), nullable=False),
    pa.field("letters", pa.int64(), nullable=False),
])
schemas.ARTIFACTS["names"] = ("results/names.parquet", NAMES)
specs.KINDS["names"] = specs.RunKind(
    name="names",
    command="names",
    job="names",
    op=specs.Op("names_op", "names_contract", "Measure names."),
    run_type="names",
    outputs=(specs.Output(("made_up", "names"), "names", "How long the name of each call's token is."),),
    depends_on=("interval",),
    recipe="made_up_recipe",
    help="Measure the names of tokens.",
    about="Measure the names of tokens.",
)
'''

RECIPE = '''
"""How the numbers of the made-up kind are made."""

from quantbot_pipeline.backtest.writing import write_rows


def make(run):
    calls = run.inputs.calls.select(["call_id", "mint"]).to_pylist()
    write_rows(run, "names", [{"call_id": call["call_id"], "letters": len(call["mint"])} for call in calls])
'''

COMMAND = """
import made_up_kind
from quantbot_pipeline.cli.main import main

main()
"""

DEFINITIONS = """
import made_up_kind
import dagster as dg
from quantbot_pipeline.definitions import defs

key = dg.AssetKey(["made_up", "names"])
assert key in {spec.key for spec in defs.resolve_all_asset_specs()}
assert defs.resolve_job_def("names")
assert key in {check.asset_key for check in defs.resolve_asset_graph().asset_check_keys}
"""


def test_a_made_up_kind_is_asset_job_check_command_and_view(home: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    for name, text in (
        ("made_up_kind", ROW_AND_SCHEMA),
        ("made_up_recipe", RECIPE),
        ("command", COMMAND),
        ("definitions", DEFINITIONS),
    ):
        (beside / f"{name}.py").write_text(text)

    def program(name: str, *arguments: str) -> str:
        # A process of its own: the rooms read the table of run kinds when they are imported.
        done = subprocess.run(
            [sys.executable, str(beside / f"{name}.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(beside)},
            capture_output=True,
            text=True,
            cwd=home,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    program("definitions")
    runs = json.loads(
        program("command", "backtest", "names", "--from", "2024-01", "--to", "2024-01", "--format", "json")
    )
    assert [(run["run_type"], run["status"]) for run in runs] == [("names", "completed")]
    program("command", "backtest", "catalog-sync")
    shown = json.loads(program("command", "backtest", "catalog-query", "--run-type", "names", "--format", "json"))
    assert len(shown) == 1
    counted = json.loads(
        program("command", "query", "SELECT count(*) AS n, min(letters) AS least FROM names", "--format", "json")
    )
    assert counted[0]["n"] >= CALLS_PER_MONTH
    assert counted[0]["least"] > 0
    assert (home / "data/backtest_catalog.duckdb").exists()
