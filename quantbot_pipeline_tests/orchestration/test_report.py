"""What the command line makes without a run of Dagster is seen in the home's instance."""

from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.labs import CALLS_PER_MONTH

CATALOG, DASHBOARD = dg.AssetKey(["catalog", "runs"]), dg.AssetKey(["reports", "dashboard"])


def newest(home: Path, monkeypatch: pytest.MonkeyPatch, key: dg.AssetKey) -> dict[str | None, dg.AssetMaterialization]:
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        found = instance.fetch_materializations(key, limit=100).records
    return {
        event.partition_key: event.asset_materialization for event in reversed(found) if event.asset_materialization
    }


def test_syncs_and_the_dashboard_of_the_command_line_are_materializations(
    quantbot: Quantbot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = ["--no-sync", "--home", str(home), "--from", "2024-01", "--to", "2024-02"]
    assert quantbot("backtest", "path-only", *span).status == 0
    assert newest(home, monkeypatch, CATALOG) == {}
    assert quantbot("backtest", "catalog-sync", "--home", str(home)).status == 0
    months = newest(home, monkeypatch, CATALOG)
    assert sorted(map(str, months)) == ["2024-01", "2024-02"]
    shown = months["2024-01"].metadata
    assert (shown["runs"].value, shown["completed"].value, shown["kinds"].value) == (1, 1, {"path-only completed": 1})
    rows = shown["rows"].value
    assert isinstance(rows, int)
    assert rows >= CALLS_PER_MONTH
    with dg.DagsterInstance.get() as instance:
        before = len(instance.fetch_materializations(CATALOG, limit=100).records)
        assert quantbot("backtest", "catalog-sync", "--home", str(home)).status == 0
        assert len(instance.fetch_materializations(CATALOG, limit=100).records) == before, "nothing new, nothing told"
    assert quantbot("dashboard", "--home", str(home)).status == 0
    page = newest(home, monkeypatch, DASHBOARD)[None].metadata
    assert Path(str(page["path"].value)).stat().st_size == page["bytes"].value
    elsewhere = home / "elsewhere.html"
    assert quantbot("dashboard", "--home", str(home), "--out", str(elsewhere)).status == 0
    assert Path(str(newest(home, monkeypatch, DASHBOARD)[None].metadata["path"].value)) != elsewhere
