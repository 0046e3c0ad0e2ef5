"""Invariants: real artifacts keep them, and every way to break one is named with its column, count and an example."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline import vocabulary
from quantbot_pipeline.artifacts import invariants
from quantbot_pipeline.artifacts.invariants import broken
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.inspection import Inspection, inspect_run
from quantbot_pipeline.runs.manifest import RunManifest, folder_of, read_manifest
from quantbot_pipeline.vocabulary import EXIT_REASONS, SCHEMES
from quantbot_pipeline_tests.support import forecasts
from quantbot_pipeline_tests.support.builders import Row, call, candles, make_home

MONTHS = ("2024-01", "2024-02")
Tables = dict[str, pa.Table]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two callers with a dozen calls a month on twelve tokens, one of them without candles."""
    calls: list[Row] = []
    rows: list[Row] = []
    for month in MONTHS:
        for i in range(12):
            mint = f"{month}-{i}"
            calls += [call(mint, f"{month}-{2 * i + 1:02}T0{k}:02", "ab"[k], call_id=f"{mint}-{k}") for k in range(2)]
            if i:
                rows += candles(mint, f"{month}-{2 * i + 1:02}", 640)
    odd = candles("odd", "2024-02-10", 300)  # nobody calls it
    for at in (100, 200):
        odd[at]["high"] *= 3
    return make_home(tmp_path_factory.mktemp("invariants"), calls, [*rows, *odd])


@pytest.fixture(scope="module")
def tables(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Every artifact as a real run wrote it; `v1` is the frontier of the baseline."""
    found: Tables = {}
    recipes: tuple[str, ...] = ("v1-baseline", "walk-forward", "evidence", "tune", "anomalies", "full")
    for recipe in recipes:
        result = run_month(lab, recipe, MONTHS[1], BacktestConfig(both_orders=True))
        assert result is not None
        read = {name: pq.ParquetFile(result.run_dir / e.path).read() for name, e in result.manifest.artifacts.items()}
        found |= {"v1": read["frontier"], **read} if recipe == "v1-baseline" else read
    model = forecasts.model(forecasts.make_home(tmp_path_factory.mktemp("models") / "home"), "2024-03")
    entries = {name: e for name, e in model.manifest.artifacts.items() if name not in found}
    return found | {name: pq.ParquetFile(model.run_dir / e.path).read() for name, e in entries.items()}


def changed(table: pa.Table, values: Row, row: int = 0) -> pa.Table:
    """The table with other values in one row; nothing else changes, not even the schema."""
    for name, value in values.items():
        at = table.schema.get_field_index(name)
        column = table[name].to_pylist()
        column[row] = value
        table = table.set_column(at, table.schema.field(at), pa.array(column, table.schema.field(at).type))
    return table


def test_every_artifact_of_a_real_run_keeps_its_invariants(tables: Tables) -> None:
    assert tables.keys() == {*ARTIFACTS, "v1"}
    for name, table in tables.items():
        assert table.num_rows, name
        assert broken("frontier" if name == "v1" else name, table) == []


@pytest.mark.parametrize(
    "config",
    [
        {"entry": "close", "horizon_ms": 1_000_003, "intrabar": "optimistic"},
        {"horizon_ms": 300_000, "taker_fee_bps": 0, "slippage_bps": 0},
        {"min_coverage": 1.0, "stop_slippage_bps": 500.0, "objective": {"kind": "median"}},
        {"horizon_ms": 1, "latency_ms": 0},  # no call has a window
    ],
)
@pytest.mark.parametrize("recipe", ["full", "v1-baseline", "walk-forward", "evidence", "model", "anomalies"])
def test_no_configuration_breaks_them(lab: Home, recipe: str, config: dict[str, Any]) -> None:
    result = run_month(lab, recipe, MONTHS[1], BacktestConfig(**config))
    assert result is not None
    names = [name for name in result.manifest.artifacts if name not in ("alerts", "errors")]
    assert not any(inspect_run(result.run_dir, names).faults.values())


def test_nothing_to_tune_on_breaks_none(lab: Home) -> None:
    """No call has a window: a run with rows and without a choice."""
    result = run_month(lab, "tune", MONTHS[1], BacktestConfig(horizon_ms=1, latency_ms=0))
    assert result is not None
    assert inspect_run(result.run_dir, ["tuned"]) == Inspection({"tuned": 6}, {"tuned": []})


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_an_empty_artifact_keeps_them(artifact: str) -> None:
    assert broken(artifact, ARTIFACTS[artifact][1].empty_table()) == []


TIME = 1_706_800_000_000
BREAKS: list[tuple[str, Row, str]] = [
    ("alerts", {"call_id": "2024-02-1-1"}, "call_id: repeated"),
    ("alerts", {"caller_name": ""}, "caller_name: empty"),
    ("alerts", {"alert_ts_ms": 0}, "alert_ts_ms: not a time"),
    ("anomalies", {"kind": "odd"}, "kind: unknown"),
    ("anomalies", {"severity": "fatal"}, "severity: unknown"),
    ("anomalies", {"subject_type": "token"}, "subject_type: unknown"),
    ("anomalies", {"subject": ""}, "subject: empty"),
    ("anomalies", {"reason": ""}, "reason: empty"),
    ("anomalies", {"other_subject": "x"}, "other_subject: without a pair"),
    ("anomalies", {"subject_type": "pair"}, "other_subject: without a pair"),
    ("anomalies", {"to_ts_ms": 1}, "to_ts_ms: before from_ts_ms"),
    ("anomalies", {"score": 0.1}, "score: below the limit"),
    ("anomalies", {"calls_touched": -1, "hits_touched": -1}, "calls_touched: negative"),
    ("anomalies", {"hits_touched": 2}, "hits_touched: more than calls_touched"),
    ("anomalies", {"details": "[]"}, "details: not a JSON object"),
    ("paths", {"call_id": "2024-02-2-0"}, "call_id: repeated"),
    ("paths", {"p0": 0.0}, "p0: not above 0"),
    ("paths", {"peak_multiple": 0.93}, "peak_multiple: below 1"),
    ("paths", {"peak_multiple": 1.0}, "t_peak_ms: without a peak"),
    ("paths", {"peak_multiple": 9.0}, "hit_2x: not what peak_multiple says"),
    ("paths", {"dd_bps": 3.0}, "dd_bps: outside"),
    ("paths", {"dd_bps": -10_001.0}, "dd_bps: outside"),
    ("paths", {"hit_2x": False, "t_2x_ms": TIME}, "hit_2x: without t_2x_ms"),
    ("paths", {"hit_2x": True, "t_2x_ms": None}, "hit_2x: without t_2x_ms"),
    ("paths", {"hit_3x": True, "t_3x_ms": TIME, "hit_2x": False}, "hit_3x: without hit_2x"),
    ("paths", {"hit_4x": True, "t_4x_ms": TIME, "hit_3x": False}, "hit_4x: without hit_3x"),
    ("paths", {"hit_2x": True, "hit_3x": True, "t_2x_ms": TIME + 1, "t_3x_ms": TIME}, "t_3x_ms: before t_2x_ms"),
    ("paths", {"hit_2x": True, "t_2x_ms": TIME, "dd_to_2x_bps": None}, "dd_to_2x_bps: without hit_2x"),
    ("paths", {"dd_to_2x_bps": -9_999.0}, "dd_to_2x_bps: deeper than dd_bps"),
    ("paths", {"t_2x_ms": 5}, "t_2x_ms: outside the observed window"),
    ("paths", {"t_peak_ms": TIME * 2}, "t_peak_ms: outside the observed window"),
    ("paths", {"alert_to_activity_ms": -1}, "alert_to_activity_ms: outside the observed window"),
    ("paths", {"coverage": 1.01}, "coverage: outside 0 to 1"),
    ("paths", {"coverage": float("nan")}, "coverage: not finite"),
    ("paths", {"observed_ms": 0}, "observed_ms: not above 0"),
    ("paths", {"entry_ts_ms": 1}, "entry_ts_ms: before the alert"),
    ("paths", {"entry_delay_ms": 1}, "entry_delay_ms: not entry_ts_ms"),
    ("features", {"call_id": "2024-02-2-0"}, "call_id: repeated"),
    ("features", {"hour_utc": 24}, "hour_utc: outside"),
    ("features", {"weekday_utc": 0}, "weekday_utc: outside"),
    ("features", {"caller_prior_calls": -1}, "caller_prior_calls: negative"),
    ("features", {"mint_prior_callers": 9, "mint_prior_calls": 1}, "mint_prior_callers: more than"),
    ("features", {"since_callers_last_call_ms": 0}, "since_callers_last_call_ms: not above 0"),
    ("features", {"caller_prior_calls": 0}, "since_callers_last_call_ms: without caller_prior_calls"),
    ("features", {"mint_age_ms": -3, "mint_prior_calls": 1}, "mint_age_ms: not above 0"),
    ("features", {"features": '{"b": 1, "a": 2}'}, "features: not a JSON object with sorted keys"),
    ("features", {"features": "[1]"}, "features: not a JSON object"),
    ("features", {"calls_24h": None}, "calls_24h: null"),
    ("features", {"mint_callers_1h": 9}, "mint_callers_1h: more than mint_prior_callers"),
    ("features", {"caller_calls_24h": 900}, "caller_calls_24h: more than calls_24h"),
    ("features", {"caller_follow_share": None}, "caller_follow_share: without caller_prior_calls"),
    ("features", {"caller_follow_share": 1.5}, "caller_follow_share: outside 0 to 1"),
    ("features", {"candles_24h": 5}, "stale_ms: without candles_24h"),
    ("features", {"rv_24h": 0.1}, "rv_24h: without candles_24h"),
    ("features", {"ret_1h": 0.1}, "ret_1h: without ret_4h"),
    ("features", {"rv_4h": 0.1}, "rv_4h: without ret_4h"),
    ("features", {"max_up_24h": 1.0, "rv_24h": 0.5}, "max_up_24h: more than rv_24h"),
    ("features", {"stale_ms": 90_000_000}, "stale_ms: more than a day"),
    ("features", {"from_high_24h": 0.1}, "from_high_24h: above 0"),
    ("features", {"from_low_24h": -0.1}, "from_low_24h: negative"),
    ("features", {"volume_share_1h": 1.1}, "volume_share_1h: outside 0 to 1"),
    ("features", {"market_tokens": 3}, "market_ret_24h: without market_tokens"),
    ("features", {"excess_ret_24h": 0.5}, "excess_ret_24h: without its two returns"),
    (
        "features",
        {"excess_ret_24h": 99.0, "ret_24h": 1.0, "market_ret_24h": 0.5},
        "excess_ret_24h: not ret_24h - market_ret_24h",
    ),
    ("trades", {"call_id": "2024-02-2-0"}, "call_id: repeated under one policy"),
    ("trades", {"exit_ts_ms": 1}, "exit_ts_ms: before entry_ts_ms"),
    ("trades", {"time_exposed_ms": -1}, "time_exposed_ms: not exit_ts_ms"),
    ("trades", {"exit_px": 0.0}, "exit_px: not above 0"),
    ("trades", {"exit_px": -1.0}, "exit_px: not above 0"),
    ("trades", {"entry_px": float("inf")}, "entry_px: not finite"),
    ("trades", {"exit_reason": "mood"}, "exit_reason: unknown"),
    ("trades", {"realized_return_bps": 1e9}, "realized_return_bps: above gross_return_bps"),
    ("trades", {"gross_return_bps": 1.5}, "gross_return_bps: not what the prices say"),
    ("trades", {"exit_reason": "stop_loss", "gross_return_bps": -5.0, "stop_out": False}, "stop_out: not what"),
    ("trades", {"exit_reason": "horizon", "stop_out": True}, "stop_out: not what"),
    ("trades", {"max_adverse_excursion_bps": 1.0}, "max_adverse_excursion_bps: outside"),
    ("trades", {"tail_capture": -0.1}, "tail_capture: outside 0 to 1"),
    ("trades", {"fills": 0}, "fills: less than 1"),
    ("trades", {"ambiguous": None}, "ambiguous: without optimistic_return_bps"),
    ("summary", {"trades_count": 3}, "trades_count: not calls_processed - calls_excluded"),
    ("summary", {"stop_out_rate": 1.5}, "stop_out_rate: outside 0 to 1"),
    ("summary", {"loss_rate": -0.5}, "loss_rate: outside 0 to 1"),
    ("summary", {"median_tail_capture": 2.0}, "median_tail_capture: outside 0 to 1"),
    ("summary", {"p25_return_bps": 1e9}, "median_return_bps: below p25_return_bps"),
    ("summary", {"p90_return_bps": -1e9}, "p90_return_bps: below p75_return_bps"),
    ("summary", {"avg_return_bps": None}, "avg_return_bps: without a trade"),
    ("summary", {"es95_bps": 1e9}, "es95_bps: above avg_return_bps"),
    ("summary", {"stressed_avg_return_bps": 1e9}, "stressed_avg_return_bps: above avg_return_bps"),
    ("summary", {"censored_count": 99}, "censored_count: more than the trades"),
    ("summary", {"avg_max_adverse_excursion_bps": 1.0}, "avg_max_adverse_excursion_bps: above 0"),
    ("frontier", {"rank": 2}, "rank: not 1 to the number"),
    ("frontier", {"rank": 0}, "rank: not 1 to the number"),
    ("frontier", {"objective_score": float("-inf")}, "objective_score: not finite"),
    ("frontier", {"objective_score": -1e9}, "objective_score: above that of the rank before"),
    ("frontier", {"violations": "trades", "meets_constraints": True}, "meets_constraints: not what violations say"),
    ("frontier", {"violations": "", "meets_constraints": False}, "meets_constraints: not what violations say"),
    ("frontier", {"policy_params": "{"}, "policy_params: not a JSON object"),
    ("frontier", {"p95_drawdown_bps": 1.0}, "p95_drawdown_bps: outside"),
    ("frontier", {"distinct_mints": 999}, "distinct_mints: more than trades"),
    ("v1", {"rank": 31}, "rank: not 1 to the number"),
    ("v1", {"trades": -1}, "trades: negative"),
    ("equity", {"event": "hold"}, "event: neither open nor close"),
    ("equity", {"size": 0.0}, "size: not above 0"),
    ("equity", {"cash": -5.0}, "cash: below 0"),
    ("equity", {"equity": 1.0}, "equity: below cash"),
    ("equity", {"ts_ms": TIME * 2}, "ts_ms: before the event above"),
    ("equity", {"call_id": "nobody"}, "call_id: opened and never closed"),
    ("walk_forward", {"scheme": "clairvoyant"}, "scheme: unknown"),
    ("walk_forward", {"caller_name": "a"}, "caller_name: repeated under one scheme"),
    ("walk_forward", {"out_of_sample_trades": 1}, "out_of_sample_trades: not test_calls"),
    ("walk_forward", {"hold_trades": 0}, "hold_trades: not test_calls"),
    ("walk_forward", {"hold_stop_out_rate": 1.1}, "hold_stop_out_rate: outside 0 to 1"),
    ("walk_forward", {"policy_id": None, "policy_params": "{}"}, "policy_params: without policy_id"),
    ("walk_forward", {"in_sample_es95_bps": 1.0, "policy_id": None}, "in_sample_es95_bps: without policy_id"),
    ("walk_forward", {"efficiency": 1.0, "in_sample_avg_return_bps": -1.0}, "efficiency: without a gain"),
    ("walk_forward", {"pooled_trades": 0, "pooled_avg_return_bps": 1.0}, "pooled_avg_return_bps: not 0 without"),
    ("tuned", {"scheme": "clairvoyant"}, "scheme: unknown"),
    ("tuned", {"caller_name": "a"}, "caller_name: repeated under one scheme"),
    ("tuned", {"policy_id": None}, "policy_params: without policy_id"),
    ("tuned", {"grid_policy_params": None, "grid_policy_id": "time_1h"}, "grid_policy_params: without grid_policy_id"),
    ("tuned", {"promise_bps": None, "policy_id": "time_1h"}, "promise_bps: without policy_id"),
    ("tuned", {"plateau_bps": 1.0, "policy_id": None}, "plateau_bps: without policy_id"),
    ("tuned", {"evaluations": 0, "policy_id": "time_1h"}, "evaluations: none behind a policy"),
    ("tuned", {"out_of_sample_bps": 1.0, "test_calls": 0}, "out_of_sample_bps: not 0 without a trade"),
    ("tuned", {"grid_bps": 1.0, "grid_policy_id": None}, "grid_bps: not 0 without a trade"),
    ("tuned", {"train_calls": -1}, "train_calls: negative"),
    ("tuned", {"verdict": "splendid"}, "verdict: unknown"),
    ("tuned", {"verdict": "tuned better", "difference_z": 1.9}, "verdict: not what difference_z says"),
    ("tuned", {"verdict": "not shown", "difference_z": -2.5}, "verdict: not what difference_z says"),
    ("tuned", {"leaning_verdict": "leaning better", "leaning_z": None}, "leaning_verdict: not what leaning_z says"),
    ("tuned", {"hold_verdict": "hold better", "hold_z": 3.0}, "hold_verdict: not what hold_z says"),
    ("predictions", {"call_id": ""}, "call_id: empty"),
    ("predictions", {"status": "guessed"}, "status: unknown"),
    ("predictions", {"status": "no train call"}, "value: not the base rate"),
    ("predictions", {"value": 1.0}, "value: no probability"),
    ("predictions", {"linear_value": -0.1}, "linear_value: no probability"),
    ("predictions", {"take": True, "limit": 0.99}, "take: not what value and limit say"),
    ("predictions", {"take": True, "limit": None}, "take: not what value and limit say"),
    ("predictions", {"low": 0.1, "high": None}, "low: without high"),
    ("predictions", {"low": 0.2, "high": 0.1}, "low: above high"),
    ("predictions", {"excluded": None}, "outcome: though unsettled"),
    ("predictions", {"excluded": True}, "policy_return: though unsettled"),
    ("predictions", {"outcome": None}, "outcome: though unsettled"),
    ("predictions", {"outcome": 0.5}, "outcome: neither 0 nor 1"),
    ("predictions", {"outcome_known_ts_ms": 1}, "outcome_known_ts_ms: not after the alert"),
    ("predictions", {"policy_return": -1.1}, "policy_return: below -1"),
    ("predictions", {"outside": -1}, "outside: negative"),
    ("model_report", {"model": "oracle"}, "model: unknown"),
    ("model_report", {"scope": "ever"}, "scope: unknown"),
    ("model_report", {"model": "boosting"}, "model: repeated"),
    ("model_report", {"auc": 1.1}, "auc: outside 0 to 1"),
    ("model_report", {"verdict": "better"}, "verdict: not of the blend"),
    ("model_report", {"positives": 10_000}, "positives: more than the calls"),
    ("model_report", {"model": "blend", "weight_linear": 1.6}, "weight_linear: outside 0 to 1.5"),
    (
        "model_report",
        {"model": "blend", "scope": "to_date", "verdict": "better"},
        "verdict: better without a sure gain",
    ),
    ("model_report", {"model": "blend", "verdict": "good"}, "verdict: unknown"),
    ("importance", {"feature": ""}, "feature: empty"),
    ("dependence", {"value": 1.5}, "value: no probability"),
    ("calibration", {"bin": 11}, "bin: not 1 to 10"),
    ("calibration", {"observed": 0.99, "high": 0.5}, "observed: outside low to high"),
    ("models", {"model_id": "0" * 16}, "model_id: not the hash of its document"),
    ("models", {"document": "{}"}, "model_id: not the hash of its document"),
    ("errors", {"level": "fatal"}, "level: unknown"),
    ("errors", {"phase": "afterwards"}, "phase: unknown"),
    ("errors", {"details": "no"}, "details: not a JSON object"),
    ("errors", {"message": ""}, "message: empty"),
]


@pytest.mark.parametrize(("artifact", "values", "expected"), BREAKS, ids=[f"{a}-{e}" for a, _, e in BREAKS])
def test_what_breaks_one_is_named(tables: Tables, artifact: str, values: Row, expected: str) -> None:
    kind = "frontier" if artifact == "v1" else artifact
    found = broken(kind, changed(tables[artifact], values))
    assert any(sentence.startswith(f"{kind}.{expected}") for sentence in found), found


def test_a_sentence_counts_and_gives_an_example(tables: Tables) -> None:
    table = changed(changed(tables["paths"], {"p0": -1.0}, 3), {"p0": -2.0}, 5)
    example = table["call_id"][3].as_py()
    assert broken("paths", table) == [f"paths.p0: not above 0 in 2 of 22 rows, e.g. call_id {example!r} (-1.0)"]


def test_every_number_must_be_finite(tables: Tables) -> None:
    for artifact, (_, schema) in ARTIFACTS.items():
        for field in schema:
            if field.type == pa.float64():
                for value in (float("nan"), float("inf"), float("-inf")):
                    found = broken(artifact, changed(tables[artifact], {field.name: value}))
                    assert any(s.startswith(f"{artifact}.{field.name}: not finite in 1 of") for s in found), field


def test_another_schema_is_named_column_by_column(tables: Tables) -> None:
    paths = tables["paths"]
    assert broken("paths", paths.drop_columns(["p0"])) == ["paths.p0: missing"]
    assert broken("paths", paths.append_column("mood", paths["p0"])) == ["paths.mood: not in the contract"]
    (sentence,) = broken("paths", paths.set_column(7, "p0", paths["p0"].cast(pa.float32())))
    assert sentence.startswith("paths.p0: ")
    assert "float instead of" in sentence
    assert broken("paths", paths.select(paths.column_names[::-1]))[0].endswith("not in the contract's order")
    nulls = pa.table([pa.nulls(1, f.type) for f in paths.schema], schema=paths.schema)
    assert "paths.p0: null in 1 of 1 rows" in broken("paths", nulls)


def test_the_words_are_those_of_the_engine_and_the_search() -> None:
    assert set(vocabulary.EXIT_REASONS) == set(EXIT_REASONS)
    assert vocabulary.SCHEMES == SCHEMES


# --- a run as a whole -------------------------------------------------------------------------------------------------


@pytest.fixture
def run_dir(lab: Home, tmp_path: Path) -> Path:
    result = run_month(lab, "path-only", MONTHS[1], BacktestConfig(), only_changed=True)
    assert result is not None
    copy = tmp_path / MONTHS[1] / result.run_dir.name
    shutil.copytree(folder_of(result.run_dir), copy)
    return copy


def rewrite(run_dir: Path, artifact: str, table: pa.Table, row_group: int | None = None) -> None:
    """Another table in the place of an artifact, as a faulty program would commit it: with right checksums."""
    manifest = read_manifest(run_dir)
    path = run_dir / manifest.artifacts[artifact].path
    pq.write_table(table, path, write_page_checksum=True, row_group_size=row_group)
    content = path.read_bytes()
    entry = {"rows": table.num_rows, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.artifacts[artifact] = manifest.artifacts[artifact].model_copy(update=entry)
    vouch(run_dir, manifest)


def vouch(run_dir: Path, manifest: RunManifest) -> None:
    content = manifest.to_json()
    (run_dir / "run.json").write_bytes(content)
    (run_dir / "_SUCCESS").write_text(hashlib.sha256(content).hexdigest() + "\n")


def read(run_dir: Path, artifact: str) -> pa.Table:
    return pq.ParquetFile(run_dir / read_manifest(run_dir).artifacts[artifact].path).read()


def test_a_committed_run_passes(run_dir: Path) -> None:
    found = inspect_run(run_dir, ["paths", "features"])
    assert found.rows == {"paths": 22, "features": 24}
    assert found.faults == {"paths": [], "features": []}


def test_a_flipped_bit_is_a_fault_of_every_artifact_of_the_run(run_dir: Path) -> None:
    path = run_dir / "truth" / "paths.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    faults = inspect_run(run_dir, ["paths", "features"]).faults
    assert faults["paths"] == faults["features"] == [f"{path}: checksum differs from run.json"]


def test_a_missing_artifact_and_an_unfinished_run_are_faults(run_dir: Path) -> None:
    assert "has no artifact trades" in inspect_run(run_dir, ["trades"]).faults["trades"][0]
    (run_dir / "_SUCCESS").unlink()
    assert "no _SUCCESS" in inspect_run(run_dir, ["paths"]).faults["paths"][0]


def test_right_checksums_do_not_excuse_wrong_values(run_dir: Path) -> None:
    rewrite(run_dir, "paths", changed(read(run_dir, "paths"), {"peak_multiple": 0.5}))
    faults = inspect_run(run_dir, ["paths", "features"]).faults
    assert faults["paths"][0].startswith("paths.peak_multiple: below 1 in 1 of 22 rows")
    assert faults["features"] == []


@pytest.mark.parametrize(
    ("artifact", "values"),
    [
        ("paths", {}),
        ("paths", {"peak_multiple": 0.5}),
        ("paths", {"call_id": "stranger"}),
        ("paths", {"run_id": "other"}),
        ("features", {"features": "[]"}),
        ("alerts", {"mint": ""}),
    ],
)
def test_a_large_artifact_is_judged_column_by_column(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, artifact: str, values: Row
) -> None:
    """Several row groups, which are never held as one table, and texts parsed a few at a time: the same sentences."""
    table = read(run_dir, artifact)
    again = [table.slice(0, table.num_rows - 1), table.slice(table.num_rows - 2, 1)]  # a row is repeated
    table = changed(table, values) if values else pa.concat_tables(again)
    rewrite(run_dir, artifact, table)
    whole = inspect_run(run_dir, ["paths", "features"])
    monkeypatch.setattr(invariants, "TEXTS_AT_ONCE", 3)
    rewrite(run_dir, artifact, table, row_group=4)
    assert inspect_run(run_dir, ["paths", "features"]) == whole
    assert len(whole.faults["paths" if artifact == "alerts" else artifact]) == 1


def test_alerts_concern_every_artifact_of_the_run(run_dir: Path) -> None:
    rewrite(run_dir, "alerts", changed(read(run_dir, "alerts"), {"mint": ""}))
    faults = inspect_run(run_dir, ["paths", "features"]).faults
    assert all(fault[0].startswith("alerts.mint: empty in 1 of 24 rows") for fault in faults.values())


def test_artifacts_of_a_run_must_fit_together(run_dir: Path) -> None:
    paths = read(run_dir, "paths")
    rewrite(run_dir, "paths", changed(changed(paths, {"call_id": "stranger"}), {"run_id": "other"}).slice(0, 20))
    faults = inspect_run(run_dir, ["paths"]).faults["paths"]
    assert faults == [
        "paths.run_id: of another run in 1 of 20 rows",
        "paths.call_id: not among the run's alerts in 1 of 20 rows, e.g. 'stranger'",
        "paths: 20 rows for 24 calls, 2 of them excluded",
    ]


def test_the_manifest_must_count_right(run_dir: Path) -> None:
    manifest = read_manifest(run_dir)
    manifest.artifacts["errors"] = manifest.artifacts["errors"].model_copy(update={"rows": 77})
    vouch(run_dir, manifest)
    assert "run.json says 77" in inspect_run(run_dir, ["paths"]).faults["paths"][0]
