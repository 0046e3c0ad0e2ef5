"""Assets in this process on a real instance: one Dagster run for a range, each month committed and reported on its own."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline.orchestration import partitions
from quantbot_pipeline.orchestration.assets import backtests
from quantbot_pipeline.orchestration.assets.backtests import LaunchConfig
from quantbot_pipeline.orchestration.partitions import month_partitions
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.runs.manifest import RunManifest, read_manifest
from quantbot_pipeline.runs.verify import check_run, read_artifact
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline_tests.support.builders import candles, write_parquet
from quantbot_pipeline_tests.support.labs import CALLS_PER_MONTH, run_dirs
from quantbot_pipeline_tests.support.object_store import options

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
PATHS = dg.AssetKey(["truth", "paths"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:  # on disk, in a home: the tests of the command line
        yield instance


def materialize(
    home: Path, instance: dg.DagsterInstance, first: str, last: str, recipe: Any = "path-only", **config: Any
) -> dg.ExecuteInProcessResult:
    """One run of a recipe's job over a range of months, as a backfill launches it; failures are returned, not raised."""
    name, op = KINDS[recipe].job, KINDS[recipe].op.name
    return (
        build_defs({"lab": Lab(home=str(home))})
        .resolve_job_def(name)
        .execute_in_process(
            instance=instance,
            run_config=dg.RunConfig(ops={op: LaunchConfig(**config)}, loggers=QUIET),
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            raise_on_error=False,
        )
    )


def reported(instance: dg.DagsterInstance, key: dg.AssetKey = PATHS) -> dict[str, list[dict[str, Any]]]:
    """{month: metadata of each of its materializations, oldest first}."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in reversed(instance.fetch_materializations(key, limit=100).records):
        materialization = record.asset_materialization
        assert materialization is not None
        values = {name: value.value for name, value in materialization.metadata.items()}
        found.setdefault(str(materialization.partition), []).append(values)
    return found


def manifests(home: Path) -> dict[str, RunManifest]:
    """{month: manifest} of a home that holds at most one run per month; every run is verified."""
    found = [check_run(folder) for folder in run_dirs(home)]
    assert len({m.month for m in found}) == len(found)
    return {m.month: m for m in found}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the failed backtest says of itself."""
    assert not result.success
    (event,) = (event for event in result.all_events if event.is_step_failure)
    data = event.step_failure_data.user_failure_data
    assert data is not None, event.step_failure_data.error_display_string
    return data.description or ""


def store_file(home: Path, month: str) -> Path:
    return home / "data" / "candles" / "interval=5m" / f"month={month}" / "candles.parquet"


def test_a_range_is_one_run_and_every_month_has_its_own_metadata(home: Path, instance: dg.DagsterInstance) -> None:
    result = materialize(home, instance, "2024-01", "2024-03")
    assert result.success
    assert len(instance.get_runs()) == 1
    made = manifests(home)
    metadata = reported(instance)
    assert set(made) == set(metadata) == {"2024-01", "2024-02", "2024-03"}
    for month, (values,) in metadata.items():
        manifest = made[month]
        assert manifest.dagster.run_id == result.run_id
        assert (manifest.dagster.partition_key, manifest.run_type) == (month, "path-only")
        run_dir = Path(values["run_dir"])
        assert run_dir == home / "runs" / month / f"run_id={manifest.run_id}"
        assert (values["calls"], values["excluded"], values["rows"]) == (CALLS_PER_MONTH, 0, CALLS_PER_MONTH)
        assert values["bytes"] == (run_dir / "truth" / "paths.parquet").stat().st_size
        assert values["seconds"] == pytest.approx(manifest.timing.total_ms / 1e3, abs=1e-3)
        assert values["run_id"] == manifest.run_id
        paths = read_artifact(run_dir, manifest, "paths").to_pydict()
        for k in (2, 3, 4):
            rate = sum(paths[f"hit_{k}x"]) / len(paths[f"hit_{k}x"])
            assert values[f"hit_{k}x_rate"] == float(f"{rate:.6g}")  # for people
        assert "best" not in values
        peaks = values["highest_peaks"].records
        assert peaks[0].data["peak_multiple"] == round(max(paths["peak_multiple"]), 4)
        assert all(math.isfinite(v) for v in values.values() if isinstance(v, float))
    assert len({values[0]["data_version"] for values in metadata.values()}) == 3


def test_the_inputs_take_stock_of_every_month(home: Path, instance: dg.DagsterInstance) -> None:
    assert materialize(home, instance, "2024-03", "2024-05").success
    calls = reported(instance, dg.AssetKey(["inputs", "alerts"]))
    assert [calls[month][0]["calls"] for month in ("2024-03", "2024-04", "2024-05")] == [6, 0, 6]
    stock = reported(instance, dg.AssetKey(["inputs", "candles"]))
    for month in ("2024-03", "2024-05"):
        assert stock[month][0]["rows"] == pq.read_metadata(store_file(home, month)).num_rows
        assert stock[month][0]["bytes"] == store_file(home, month).stat().st_size
    assert stock["2024-04"][0]["rows"] == 0


def test_taking_stock_twice_makes_nothing_look_out_of_date(home: Path, instance: dg.DagsterInstance) -> None:
    def versions() -> dict[str, set[str]]:
        keys = [dg.AssetKey(["inputs", name]) for name in ("alerts", "candles")]
        return {
            key.path[1]: {
                str((record.asset_materialization.tags or {})["dagster/data_version"])
                for record in instance.fetch_materializations(key, limit=2).records
                if record.asset_materialization is not None
            }
            for key in keys
        }

    assert materialize(home, instance, "2024-01", "2024-02").success
    first = versions()
    assert {len(found) for found in first.values()} == {1}
    assert materialize(home, instance, "2024-02", "2024-03").success
    assert versions() == first
    rows = candles("2024-01-token-0", "2024-01-20", 5)
    ingest_candles([write_parquet(home / "more.parquet", rows)], CandleStore(home / "data" / "candles"), "5m")
    assert materialize(home, instance, "2024-02", "2024-03").success
    assert versions()["alerts"] == first["alerts"]
    assert versions()["candles"] != first["candles"]


def test_a_month_without_calls_is_done_and_makes_no_run(home: Path, instance: dg.DagsterInstance) -> None:
    assert materialize(home, instance, "2024-03", "2024-05").success
    assert reported(instance)["2024-04"] == [{"calls": 0}]
    assert set(manifests(home)) == {"2024-03", "2024-05"}
    assert manifests(home)["2024-05"].dataset.calls_excluded == 1  # its token has no candle


@pytest.mark.parametrize("recipe", KINDS)
def test_every_recipe_commits_what_it_promises(home: Path, instance: dg.DagsterInstance, recipe: Any) -> None:
    assert materialize(home, instance, "2024-02", "2024-02", recipe).success
    (manifest,) = manifests(home).values()
    assert set(manifest.artifacts) == {"alerts", "errors", *KINDS[recipe].artifacts}
    for key in KINDS[recipe].keys:
        ((values,),) = reported(instance, dg.AssetKey(list(key))).values()
        assert Path(values["run_dir"]).name == f"run_id={manifest.run_id}"


def test_only_the_chosen_assets_are_made(home: Path, instance: dg.DagsterInstance) -> None:
    # As when a user picks one asset of the graph and a month.
    result = dg.materialize(
        backtests.backtest_assets(month_partitions("2017-01"), dg.BackfillPolicy.single_run())[:1],
        selection=[dg.AssetKey(["policy", "summary"])],
        partition_key="2024-01",
        resources={"lab": Lab(home=str(home))},
        instance=instance,
        run_config={"loggers": QUIET},
    )
    assert result.success
    assert manifests(home)["2024-01"].run_type == "policy"
    assert reported(instance, dg.AssetKey(["policy", "trades"])) == {}


def test_unchanged_months_are_kept_when_asked(home: Path, instance: dg.DagsterInstance) -> None:
    assert materialize(home, instance, "2024-01", "2024-02").success
    before = run_dirs(home)
    assert materialize(home, instance, "2024-01", "2024-02", only_changed=True).success
    assert run_dirs(home) == before
    for first, second in reported(instance).values():
        assert (first["unchanged"], second["unchanged"]) == (False, True)
        assert first["data_version"] == second["data_version"]
        assert first["run_dir"] == second["run_dir"]
    assert materialize(home, instance, "2024-01", "2024-02", only_changed=True, latency_ms=0).success
    assert len(run_dirs(home)) == 4


def test_equal_runs_have_equal_content_and_data_versions(home: Path, instance: dg.DagsterInstance) -> None:
    for _ in range(2):
        assert materialize(home, instance, "2024-01", "2024-01", "full").success
    first, second = (check_run(folder) for folder in run_dirs(home))
    assert first.run_id != second.run_id
    contents = [{name: entry.content_sha256 for name, entry in m.artifacts.items()} for m in (first, second)]
    assert contents[0] == contents[1]
    assert len({values["data_version"] for values in reported(instance)["2024-01"]}) == 1


def flip_a_bit(path: Path) -> None:
    """In the middle of the closes of a store file's first row group."""
    column = pq.read_metadata(path).row_group(0).column(5)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: path.write_bytes(b"not a Parquet file")])
def test_damaged_candles_are_a_failed_run_and_leave_the_other_months(
    home: Path, instance: dg.DagsterInstance, damage: Callable[[Path], object]
) -> None:
    damage(store_file(home, "2024-01"))
    message = failure_of(materialize(home, instance, "2024-01", "2024-03"))
    assert message.startswith("1 of 3 months failed: 2024-01: ")
    assert str(store_file(home, "2024-01")) in message
    assert set(reported(instance)) == {"2024-02", "2024-03"}
    made = manifests(home)
    assert {month: m.status for month, m in made.items()} == {
        "2024-01": "failed", "2024-02": "completed", "2024-03": "completed",
    }  # fmt: skip  # a table: what belongs together stands on one line
    run_dir = home / "runs" / "2024-01" / f"run_id={made['2024-01'].run_id}"
    errors = read_artifact(run_dir, made["2024-01"], "errors").to_pylist()
    assert any(row["level"] == "error" and "candles.parquet" in row["message"] for row in errors)
    assert not (run_dir / "_SUCCESS").exists()


def test_unreadable_candles_do_not_stop_taking_stock(home: Path, instance: dg.DagsterInstance) -> None:
    store_file(home, "2024-01").write_bytes(b"not a Parquet file")
    materialize(home, instance, "2024-01", "2024-02")
    stock = reported(instance, dg.AssetKey(["inputs", "candles"]))
    assert "candles.parquet" in stock["2024-01"][0]["unreadable_5m"]
    assert stock["2024-02"][0]["rows"] > 0


def test_a_month_that_cannot_be_written_leaves_the_others(home: Path, instance: dg.DagsterInstance) -> None:
    (home / "runs").mkdir()
    (home / "runs" / "2024-02").write_text("a file where the month's folder belongs")
    message = failure_of(materialize(home, instance, "2024-01", "2024-03"))
    assert message.startswith("1 of 3 months failed: 2024-02: FileExistsError: ")
    assert set(manifests(home)) == set(reported(instance)) == {"2024-01", "2024-03"}
    assert list((home / "runs" / ".staging").glob("*")) == []


def test_months_that_fail_alike_share_one_reason(home: Path, instance: dg.DagsterInstance) -> None:
    (home / "runs").write_text("a file where the runs belong")
    message = failure_of(materialize(home, instance, "2024-01", "2024-03"))
    assert message.startswith("3 of 3 months failed: 2024-01, 2024-02, 2024-03: ")
    assert message.count("Not a directory") == 1


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"policies": [{"kind": "fixed_stop", "stop_pct": 2}]}, "stop_pct"),
        ({"policies": [{"kind": "moon"}]}, "moon"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"horizon_ms": 10**18}, "horizon_ms"),
        ({"objective": {"kind": "luck"}}, "luck"),
    ],
)
def test_a_wrong_configuration_fails_before_any_work(
    home: Path, instance: dg.DagsterInstance, config: dict[str, Any], named: str
) -> None:
    try:
        result = materialize(home, instance, "2024-01", "2024-03", "full", **config)
    except (dg.DagsterInvalidConfigError, ValueError) as refused:  # the launchpad refuses what the schema can tell
        assert named in str(refused)
    else:
        assert named in failure_of(result)
    assert run_dirs(home) == set()
    assert reported(instance) == {}


@pytest.mark.parametrize(("away", "repeated"), [(False, "false"), (True, "true")], ids=["bad file", "store away"])
def test_where_failed_work_is_repeated_wrong_input_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, credentials: None, away: bool, repeated: str
) -> None:
    if away:
        monkeypatch.setenv("QUANTBOT_RUNS", "s3://lab/runs")
        monkeypatch.setenv("QUANTBOT_STORE_OPTIONS", json.dumps(options("http://127.0.0.1:9")))
    else:
        store_file(home, "2024-01").write_bytes(b"not a Parquet file")
    retries = {"run_retries": {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": True}}
    with dg.instance_for_test(overrides=retries) as instance:
        result = materialize(home, instance, "2024-01", "2024-01")
        failure_of(result)
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["dagster/will_retry"] == repeated


def test_the_catalog_asset_registers_committed_runs(home: Path, instance: dg.DagsterInstance) -> None:
    import duckdb

    assert materialize(home, instance, "2024-01", "2024-02").success
    job = build_defs({"lab": Lab(home=str(home))}).resolve_job_def("catalog_sync")
    counts = []
    for _ in range(2):
        result = job.execute_in_process(
            instance=instance,
            run_config={"loggers": QUIET},
            tags={partitions.RANGE_START: "2024-01", partitions.RANGE_END: "2024-02"},
        )
        made = result.asset_materializations_for_node("catalog__runs")
        counts.append({event.partition: event.metadata["runs"].value for event in made})
    assert counts == 2 * [{"2024-01": 1, "2024-02": 1}]
    with duckdb.connect(str(home / "data" / "backtest_catalog.duckdb"), read_only=True) as con:
        rows = con.execute("SELECT count(*), count(DISTINCT run_id) FROM paths").fetchall()
    assert rows == [(2 * CALLS_PER_MONTH, 2)]


def test_a_run_knows_the_assets_it_was_made_for(home: Path, instance: dg.DagsterInstance) -> None:
    assert materialize(home, instance, "2024-01", "2024-01", "policy").success
    (folder,) = run_dirs(home)
    assert sorted(read_manifest(folder).dagster.asset_keys) == ["policy/summary", "policy/trades"]
