"""The dashboard asset and command: where the file goes and what is said about it."""

from pathlib import Path
from urllib.request import url2pathname

import dagster as dg

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.orchestration.assets.reports import dashboard
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline_tests.conftest import Quantbot


def test_the_asset_writes_the_page_and_says_where(home: Path, quantbot: Quantbot) -> None:
    assert quantbot("backtest", "catalog-sync").status == 0
    result = dg.materialize([dashboard], resources={"lab": Lab(home=str(home))}, selection=[dashboard])
    metadata = result.asset_materializations_for_node("reports__dashboard")[0].metadata
    path = Path(str(metadata["path"].value))
    assert path == home / "data" / "dashboard.html"
    assert url2pathname(str(metadata["address"].value).removeprefix("file://")) == str(path)
    assert metadata["bytes"].value == path.stat().st_size > 500_000
    assert float(str(metadata["seconds"].value)) > 0
    graph = build_defs().resolve_asset_graph()
    node = graph.get(dashboard.key)
    assert node.group_name == "reports"
    assert node.parent_keys == {dg.AssetKey(["catalog", "runs"])}


def test_the_command_prints_the_path_and_nothing_else(home: Path, quantbot: Quantbot, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert "catalog-sync" in quantbot("dashboard").complaint
    quantbot("backtest", "catalog-sync")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    written = home / "data" / "dashboard.html"
    assert quantbot("dashboard") == (0, f"{written}\n", "")
    assert not opened
    elsewhere = home / "reports" / "page.html"
    (row,) = quantbot("dashboard", "--open", "--out", elsewhere, "--format", "json").json()
    assert row == {"path": str(elsewhere), "bytes": elsewhere.stat().st_size}
    assert opened == [elsewhere.as_uri()]
    assert "directory" in quantbot("dashboard", "--out", home).complaint
