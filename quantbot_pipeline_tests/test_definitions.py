"""The code location: it loads fast and clean, and what it shows is described, grouped and named like the run directory."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import dagster as dg
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.orchestration.assets.backtests import LaunchConfig
from quantbot_pipeline.orchestration.partitions import month_partitions
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.specs import BACKTEST, KINDS, kind_for, outputs
from quantbot_pipeline_tests.support.labs import environment

REPOSITORY = Path(__file__).parents[1]
MONTHS = month_partitions("2017-01")
HEAVY = {"numba", "llvmlite", "pyarrow", "duckdb", "pandas", "scipy", "altair", "matplotlib"}


def python(code: str, home: Path) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), cwd=home, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Of a home without calls: `make demo` makes the checkout a home with calls.
defs = build_defs({"lab": Lab(home=str(Path(__file__).parent / "no-home"))})
# Dagster looks up an instance while it puts definitions together: done now, before a test has made one and closed it.
defs.get_repository_def()


def test_every_asset_is_described_and_its_key_begins_with_its_group() -> None:
    specs = list(defs.resolve_all_asset_specs())
    assert {"inputs/alerts", "inputs/candles", "truth/paths", "policy/trades", "catalog/runs"} <= {
        spec.key.to_user_string() for spec in specs
    }
    for spec in specs:
        assert spec.group_name == spec.key.path[0]
        assert len(spec.description or "") > 20, spec.key


@pytest.mark.parametrize(("key", "artifact"), [(key, output.artifact) for key, output in outputs().items()])
def test_keys_of_backtests_mirror_the_run_directory(key: tuple[str, str], artifact: str) -> None:
    path = PurePosixPath(ARTIFACTS[artifact][0])
    assert key[1].removeprefix("v1_") == path.stem == artifact
    # Two artifacts are shown with what they are made of and with, not where their file lies.
    assert key[0] == {"features": "truth", "summary": "policy"}.get(artifact, path.parent.as_posix())


def test_everything_about_a_month_is_partitioned_by_month_and_backfilled_in_one_run() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if key.path[0] == "reports" or key.path == ["inputs", "inbox"]:
            assert node.partitions_def is None
        else:
            assert node.partitions_def == MONTHS
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


def test_month_partitions_are_calendar_months_and_hold_the_open_one() -> None:
    keys = MONTHS.get_partition_keys()
    assert keys[0] == "2017-01"
    assert keys == sorted(set(keys))
    assert len(keys) == (int(keys[-1][:4]) - 2017) * 12 + int(keys[-1][5:])
    assert keys[-1] == datetime.now(UTC).strftime("%Y-%m")


def test_the_catalog_is_written_by_one_at_a_time() -> None:
    node = defs.resolve_assets_def(dg.AssetKey(["catalog", "runs"]))
    assert node.op.pool == "catalog_writer"


def test_there_is_a_job_for_every_recipe_and_it_takes_its_inputs_along() -> None:
    for kind in KINDS.values():
        job = defs.resolve_job_def(kind.job)
        assert job.description
        assert kind.op.name in {node.name for node in job.nodes}
        selected = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
        assert selected == {"inputs/alerts", "inputs/candles", *("/".join(key) for key in kind.keys)}


@pytest.mark.parametrize(
    ("artifacts", "recipe"),
    [
        ({"paths"}, "path-only"),
        ({"paths", "features"}, "path-only"),
        ({"trades"}, "policy"),
        ({"summary"}, "policy"),
        ({"trades", "summary"}, "policy"),
        ({"frontier"}, "optimization"),
        ({"paths", "trades"}, "full"),
        ({"trades", "frontier"}, "full"),
        ({"paths", "features", "trades", "summary", "frontier"}, "full"),
    ],
)
def test_the_chosen_assets_decide_the_recipe(artifacts: set[str], recipe: str) -> None:
    keys = {key for key, output in outputs().items() if output.artifact in artifacts and not key[1].startswith("v1_")}
    kind = kind_for(BACKTEST, keys)
    assert kind.name == recipe
    assert artifacts <= set(kind.artifacts)


def test_the_launchpad_offers_every_key_of_the_configuration_with_its_default() -> None:
    offered = LaunchConfig.model_fields
    assert set(offered) == {*BacktestConfig.model_fields, "only_changed"}
    launched: dict[str, Any] = LaunchConfig().model_dump()
    assert launched.pop("only_changed") is False
    assert launched == BacktestConfig().model_dump()
    assert all(field.description for field in offered.values())


def test_other_resources_can_be_injected() -> None:
    lab = Lab(home="/somewhere/else", calls_db="/calls.duckdb")
    assert build_defs({"lab": lab}).resources == {"lab": lab}
    settings = lab.settings()
    assert (settings.runs_dir, settings.alerts_db) == (Path("/somewhere/else/runs"), Path("/calls.duckdb"))


@pytest.mark.parametrize(("months", "size"), [(None, None), ("0", None), ("3", 3)])
def test_a_setting_says_how_many_months_of_a_backfill_are_one_run(
    monkeypatch: pytest.MonkeyPatch, months: str | None, size: int | None
) -> None:
    if months is not None:
        monkeypatch.setenv("QUANTBOT_BACKFILL_MONTHS", months)
    graph = build_defs().resolve_asset_graph()
    policies = [graph.get(key).backfill_policy for key in graph.get_all_asset_keys() if graph.get(key).partitions_def]
    assert len(policies) > 10
    assert {policy.max_partitions_per_run for policy in policies if policy} == {size}
    forced = build_defs(backfill_policy=dg.BackfillPolicy.multi_run(7)).resolve_asset_graph()
    assert forced.get(dg.AssetKey(["truth", "paths"])).backfill_policy == dg.BackfillPolicy.multi_run(7)


def test_the_code_location_loads_without_the_heavy_libraries(tmp_path: Path) -> None:
    code = "import json, sys, quantbot_pipeline.definitions; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(python(code, tmp_path))
    loaded = {name.split(".")[0] for name in modules}
    assert "quantbot_pipeline" in loaded
    assert loaded & HEAVY == set()
    of_one_place = ("quantbot_pipeline.orchestration.local", "quantbot_pipeline.orchestration.cluster")
    assert [name for name in modules if name.startswith(of_one_place)] == [], "every deployment loads the same"


def test_the_command_line_answers_without_dagster_and_the_heavy_libraries(tmp_path: Path) -> None:
    code = "import json, sys, quantbot_pipeline.cli.main; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(python(code, tmp_path))}
    assert loaded & (HEAVY | {"dagster"}) == set()


def test_the_code_location_costs_less_than_a_second_beyond_dagster(tmp_path: Path) -> None:
    code = (
        "import dagster, time; start = time.process_time(); import quantbot_pipeline.definitions; "
        "print(time.process_time() - start)"
    )
    assert min(float(python(code, tmp_path)) for _ in range(2)) < 1.0


def test_no_deprecated_or_superseded_api_is_used(home: Path) -> None:
    # Loading, a range that fails in one month (it is reported in another way), runs that succeed, and the catalog.
    (home / "runs").mkdir()
    (home / "runs" / "2024-03").touch()
    code = """
import sys, warnings
import dagster as dg
for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, dg.SupersessionWarning, dg.PreviewWarning,
                 dg.BetaWarning):
    warnings.simplefilter("error", category)
from quantbot_pipeline.cli.main import main
def quantbot(*arguments):
    sys.argv = ["quantbot", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code
statuses = [quantbot("backtest", command, "--from", "2024-01", "--to", last) for command, last in
            (("full", "2024-03"), ("baseline", "2024-01"), ("walk-forward", "2024-01"))]
from quantbot_pipeline.definitions import defs
with dg.DagsterInstance.get() as instance:
    result = defs.resolve_job_def("catalog_sync").execute_in_process(instance=instance, partition_key="2024-01")
print("statuses", *statuses, result.success)
"""
    assert python(code, home).splitlines()[-1] == "statuses 1 0 0 True"


def test_the_instance_of_the_repository_and_of_homes_is_the_same_and_sends_no_telemetry(home: Path) -> None:
    packaged = REPOSITORY / "quantbot_pipeline" / "orchestration" / "local" / "dagster.yaml"
    assert (REPOSITORY / "dagster.yaml").read_text() == packaged.read_text()
    (home / "dagster.yaml").write_bytes(packaged.read_bytes())
    with dg.DagsterInstance.get() as instance:
        assert instance.telemetry_enabled is False
