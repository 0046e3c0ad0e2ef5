"""Asset checks on a real instance: what is sound passes with its numbers, what is broken stops what is downstream."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.definitions import build_defs, defs
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.replay import truth
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.manifest import RunManifest, folder_of
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.specs import outputs

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
# Catalog included: it is downstream of every output, so a blocking check must keep it from being made.
DOWNSTREAM = dg.define_asset_job(
    "truth_and_catalog", dg.AssetSelection.assets(["truth", "paths"], ["truth", "features"], ["catalog", "runs"])
)
CHECKS_ALONE = dg.define_asset_job(
    "checks_alone",
    dg.AssetSelection.checks_for_assets(dg.AssetKey(["truth", "paths"]), dg.AssetKey(["truth", "features"])),
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Outcome:
    """A finished run: what its checks said, and which steps it did."""

    def __init__(self, result: dg.ExecuteInProcessResult) -> None:
        self.result = result
        self.checks = {e.asset_check_key.to_user_string(): e for e in result.get_asset_check_evaluations()}
        self.steps = {event.step_key for event in result.all_events if event.is_step_success}

    def values(self, check: str) -> dict[str, Any]:
        return {name: value.value for name, value in self.checks[check].metadata.items()}

    def table(self, check: str, name: str = "by_month") -> list[dict[str, Any]]:
        metadata = self.checks[check].metadata[name]
        assert isinstance(metadata, dg.TableMetadataValue)
        return [dict(record.data) for record in metadata.records]


Run = Callable[..., Outcome]


@pytest.fixture
def run(home: Path, instance: dg.DagsterInstance) -> Run:
    """Run a job over a range of months; failures are returned, not raised."""

    def call(job: str, first: str | None = None, last: str | None = None) -> Outcome:
        lab = {"lab": Lab(home=str(home))}
        own = dg.Definitions.merge(build_defs(lab), dg.Definitions(jobs=[DOWNSTREAM, CHECKS_ALONE]))
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        return Outcome(
            own.resolve_job_def(job).execute_in_process(
                instance=instance,
                run_config=QUIET,
                tags={name: value for name, value in tags.items() if value},
                raise_on_error=False,
            )
        )

    return call


def break_paths(monkeypatch: pytest.MonkeyPatch, month: str) -> None:
    """A fault of the program: a peak below the entry, committed with right checksums."""
    original = truth.paths_table

    def faulty(calls: pa.Table, *rest: Any) -> pa.Table:
        table = original(calls, *rest)
        if calls["call_id"][0].as_py().startswith(month):
            peaks = table["peak_multiple"].to_pylist()
            at = table.schema.get_field_index("peak_multiple")
            table = table.set_column(at, "peak_multiple", pa.array([0.5, *peaks[1:]]))
        return table

    monkeypatch.setattr(truth, "paths_table", faulty)


def flip_a_bit(monkeypatch: pytest.MonkeyPatch, artifact: str) -> None:
    """A fault of the disk: the file is not what was committed."""
    original = StagedRun.commit

    def commit(self: StagedRun, manifest: RunManifest) -> Path:
        run_dir = folder_of(original(self, manifest))
        path = run_dir / manifest.artifacts[artifact].path
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return run_dir

    monkeypatch.setattr(StagedRun, "commit", commit)


def test_every_output_has_a_blocking_contract_and_every_check_is_described() -> None:
    graph = defs.resolve_asset_graph()
    checks = {node.key.to_user_string(): node for node in graph.asset_check_nodes}
    for key in outputs():
        assert checks[f"{'/'.join(key)}:contract"].blocking
    assert checks["truth/paths:input_quality"].blocking
    assert {name.split(":")[1] for name in checks if name.startswith("catalog/")} == {
        "catalog_health",
        "quarantine_empty",
        "free_disk",
    }
    for name, node in checks.items():
        assert len(node.description or "") > 40, name


def test_a_sound_range_passes_with_its_numbers_by_month(run: Run) -> None:
    done = run("everything", "2024-01", "2024-03")
    assert done.result.success
    assert {f"{'/'.join(key)}:contract" for key in outputs()} <= done.checks.keys()
    assert all(check.passed for check in done.checks.values())
    for key, output in outputs().items():
        rows = done.table(f"{'/'.join(key)}:contract")
        assert [row["month"] for row in rows] == ["2024-01", "2024-02", "2024-03"]
        assert {row["faults"] for row in rows} == {0}
        assert output.artifact != "paths" or {row["rows"] for row in rows} == {6}
    assert done.values("truth/paths:contract")["months"] == ["2024-01", "2024-02", "2024-03"]
    assert done.checks["truth/paths:regression"].description == "too few calls or trades to judge"


def test_a_broken_month_of_a_range_stops_what_is_downstream(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    break_paths(monkeypatch, "2024-02")
    done = run("truth_and_catalog", "2024-01", "2024-03")
    assert not done.result.success
    assert "backtest" in done.steps
    assert "catalog__runs" not in done.steps
    paths = done.checks["truth/paths:contract"]
    assert (paths.passed, paths.severity, paths.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert str(paths.description).startswith(
        "2024-02: paths.peak_multiple: below 1 in 1 of 6 rows, e.g. call_id '2024-02-"
    )
    assert list(done.values("truth/paths:contract")["failed_months"]) == ["2024-02"]
    assert [row["faults"] > 0 for row in done.table("truth/paths:contract")] == [False, True, False]
    assert done.checks["truth/features:contract"].passed


def test_the_good_months_of_a_failed_run_are_checked_all_the_same(
    run: Run, home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "runs").mkdir()
    (home / "runs" / "2024-03").touch()  # a month that cannot be committed
    break_paths(monkeypatch, "2024-02")
    done = run("everything", "2024-01", "2024-03")
    assert "backtest" not in done.steps
    logged = instance.all_logs(done.result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    events = [entry.dagster_event.event_specific_data for entry in logged if entry.dagster_event is not None]
    found = {e.asset_check_key.to_user_string(): e for e in events if isinstance(e, dg.AssetCheckEvaluation)}
    assert len(events) == len(found) == len(outputs()) + 3  # input_quality and two regressions
    paths = found["truth/paths:contract"]
    assert (paths.passed, paths.blocking, paths.severity) == (False, True, dg.AssetCheckSeverity.ERROR)
    assert paths.metadata["months"].value == ["2024-01", "2024-02"]
    assert list(paths.metadata["failed_months"].value) == ["2024-02"]  # type: ignore[arg-type]
    assert {name for name, evaluation in found.items() if not evaluation.passed} == {"truth/paths:contract"}
    records = instance.event_log_storage.get_asset_check_execution_history(paths.asset_check_key, limit=10)
    record = records[0]  # the newest; planned ones lie below
    assert record.evaluation == paths


def test_a_flipped_bit_stops_what_is_downstream(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_a_bit(monkeypatch, "alerts")
    done = run("truth_and_catalog", "2024-01")
    assert "catalog__runs" not in done.steps
    for name in ("truth/paths:contract", "truth/features:contract"):
        assert "alerts.parquet: checksum differs" in str(done.checks[name].description)


def test_one_output_of_many_can_be_checked(run: Run) -> None:
    done = run("optimize", "2024-01")
    assert done.result.success
    assert set(done.checks) == {"results/frontier:contract"}


def test_a_month_without_calls_has_nothing_to_check(run: Run) -> None:
    done = run("path_only", "2024-04")
    assert done.result.success
    assert {c.description for name, c in done.checks.items() if name.endswith((":contract", ":input_quality"))} == {
        "nothing to check: no month with calls"
    }


def test_checks_alone_look_at_the_newest_cataloged_run(run: Run, home: Path) -> None:
    assert run("checks_alone").result.success  # nothing there at all
    run("path_only", "2024-01", "2024-02")
    run("catalog_sync", "2024-01", "2024-02")
    assert run("checks_alone").values("truth/paths:contract")["months"] == ["2024-01", "2024-02"]
    (run_dir,) = (home / "runs" / "2024-02").iterdir()
    (run_dir / "features" / "features.parquet").unlink()
    done = run("checks_alone")
    assert list(done.values("truth/features:contract")["failed_months"]) == ["2024-02"]
    assert not done.result.success


def truth_and_catalog() -> dg.JobDefinition:
    """As a run worker finds it: the home is that of the environment."""
    return dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[DOWNSTREAM])).resolve_job_def(DOWNSTREAM.name)


def test_a_run_repeated_from_its_failed_check_looks_at_the_same_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dg.reconstructable(truth_and_catalog)
    with dg.instance_for_test() as instance:

        def execute(**more: Any) -> dg.JobExecutionResult:
            return dg.execute_job(job, instance, run_config=QUIET, tags={"dagster/partition": "2024-01"}, **more)

        with monkeypatch.context() as faulty:
            break_paths(faulty, "2024-01")
            first = execute()
        assert not first.success
        run_month(
            Home(Settings(home=home)), "path-only", "2024-01", BacktestConfig()
        )  # newer and sound, of no Dagster run
        sync(Catalog(home / "data" / "backtest_catalog.duckdb", LocalRuns(home / "runs")))
        again = execute(reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance))
        assert not again.success
        (contract,) = (
            e
            for e in again.get_asset_check_evaluations()
            if (e.check_name, e.asset_key.path[-1]) == ("contract", "paths")
        )
        assert "peak_multiple: below 1" in str(contract.description)


def test_input_quality_warns_or_blocks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOT_MAX_EXCLUDED_SHARE", "0.1")
    done = run("truth_and_catalog", "2024-03", "2024-05")  # one of May's six calls has no candles
    check = done.checks["truth/paths:input_quality"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "2024-05: 16.7% of the calls excluded (limit 10.0%)"
    assert [row["month"] for row in done.table("truth/paths:input_quality")] == ["2024-03", "2024-05"]
    assert done.result.success
    assert "catalog__runs" in done.steps
    monkeypatch.setenv("QUANTBOT_QUALITY_BLOCKS", "true")
    done = run("truth_and_catalog", "2024-03", "2024-05")
    assert done.checks["truth/paths:input_quality"].severity == dg.AssetCheckSeverity.ERROR
    assert not done.result.success
    assert "catalog__runs" not in done.steps


def test_a_regression_is_a_warning_about_the_newest_month(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantbot_pipeline.monitoring import regression

    monkeypatch.setattr(regression, "MIN_EVIDENCE", 5)
    monkeypatch.setattr(regression, "MIN_HISTORY", 2)
    monkeypatch.setattr(
        regression,
        "read_paths",
        lambda paths, _: regression.Reading(
            {"hit_2x_rate": 0.0 if paths["entry_ts_ms"][0].as_py() >= month_start_ms("2024-03") else 0.5}, 100
        ),
    )
    done = run("path_only", "2024-01", "2024-03")
    check = done.checks["truth/paths:regression"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "2024-03: hit_2x_rate of all callers is 0, usually 0.5 (robust z -10.0)"
    assert done.result.success
    assert [row["z"] for row in done.table("truth/paths:regression")] == [None, None, -10.0]
    older = run("path_only", "2024-01", "2024-02").checks["truth/paths:regression"]
    assert (older.passed, "too little history" in str(older.description)) == (True, True)


def test_catalog_health_quarantine_and_disk(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("path_only", "2024-01", "2024-02")
    done = run("catalog_sync", "2024-01", "2024-02")
    assert {name: check.passed for name, check in done.checks.items()} == {
        "catalog/runs:catalog_health": True,
        "catalog/runs:quarantine_empty": True,
        "catalog/runs:free_disk": True,
    }
    assert done.values("catalog/runs:catalog_health")["runs"] == 2
    assert done.values("catalog/runs:catalog_health")["sampled_files"] == 8
    (run_dir,) = (home / "runs" / "2024-02").iterdir()
    shutil.copytree(run_dir, run_dir.with_name("run_id=00000000-0000-4000-8000-000000000000"))
    paths = run_dir / "truth" / "paths.parquet"
    content = bytearray(paths.read_bytes())
    content[50] ^= 1
    paths.write_bytes(content)
    monkeypatch.setenv("QUANTBOT_MIN_FREE_GB", "1e9")
    done = run("catalog_sync", "2024-01", "2024-02")
    assert done.result.success  # none of these stops anything
    assert "paths.parquet: checksum differs" in str(done.checks["catalog/runs:catalog_health"].description)
    assert done.checks["catalog/runs:catalog_health"].severity == dg.AssetCheckSeverity.ERROR
    (row,) = done.table("catalog/runs:quarantine_empty", "runs")
    assert row["path"] == "2024-02/run_id=00000000-0000-4000-8000-000000000000"
    assert not any(check.passed for check in done.checks.values())
