"""Hostile text travels unchanged from the input into Parquet and the catalog's views, and nowhere else."""

import json
from pathlib import Path

import duckdb

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL, call, candle, make_home, ms

T = ms("2024-01-10")


def test_from_the_input_to_the_views_and_nowhere_else(tmp_path: Path) -> None:
    calls = [call(text, T - 60_000, text, call_id=text, chain=text) for text in HOSTILE_WITH_NUL]
    calls += [call(f"{text}*", T - 60_000, text, call_id=f"{text}*", chain=text) for text in HOSTILE_WITH_NUL]
    market = [candle(text, T) for text in HOSTILE_WITH_NUL] + [candle(HOSTILE_WITH_NUL[0], T, low=-1.0)]
    lab = make_home(tmp_path, calls, market)
    result = run_month(lab, "path-only", "2024-01", BacktestConfig())
    assert result is not None
    names = ("call_id", "mint", "caller_name", "chain")
    expected = sorted((text,) * 4 for text in HOSTILE_WITH_NUL)
    paths = read_artifact(result.run_dir, result.manifest, "paths")
    assert sorted(zip(*(paths[name].to_pylist() for name in names), strict=True)) == expected
    alerts = read_artifact(result.run_dir, result.manifest, "alerts")
    assert sorted(alerts["call_id"].to_pylist()) == sorted(c["call_id"] for c in calls)
    # Excluded calls are named in errors.parquet with the same text, as data.
    errors = read_artifact(result.run_dir, result.manifest, "errors").to_pylist()
    left_out = {row["call_id"]: json.loads(row["details"])["mint"] for row in errors if row["call_id"] is not None}
    assert left_out == {f"{text}*": f"{text}*" for text in HOSTILE_WITH_NUL}
    sync(lab.catalog)
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        assert sorted(con.execute(f"SELECT {', '.join(names)} FROM paths").fetchall()) == expected
        joined = "SELECT count(*) FROM paths JOIN alerts USING (run_id, call_id, mint, caller_name, chain)"
        assert con.execute(joined).fetchall() == [(len(HOSTILE_WITH_NUL),)]
        assert con.execute("SELECT count(*) FROM errors WHERE call_id IS NOT NULL").fetchall() == [(len(calls) // 2,)]
    # No file is named after them, and the manifest and the logs hold none of the long or quoted ones.
    made = [p for p in tmp_path.rglob("*") if "inbox" not in p.parts]
    assert all(len(p.name) < 80 and p.name.isascii() for p in made)
    manifest = (result.run_dir / "run.json").read_text()
    assert not any(text in manifest for text in HOSTILE_WITH_NUL if len(text) > 8)
