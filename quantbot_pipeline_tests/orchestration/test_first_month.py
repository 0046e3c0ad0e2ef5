"""The first month partition: the first month with calls, so that plots over months use their width; it only moves earlier."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.servers import quantbot_ui


def first_of(home: Path) -> str:
    """The first partition that the definitions of a home have."""
    defs = build_defs({"lab": Lab(home=str(home))})
    months = defs.resolve_assets_def(dg.AssetKey(["truth", "paths"])).partitions_def
    assert months is not None
    return months.get_partition_keys(current_time=datetime(2026, 1, 1, tzinfo=UTC))[0]


def calls_of(home: Path, day: str) -> Path:
    """A file with one call."""
    path = home / f"{day}.csv"
    path.write_text(f"call_id,mint,caller_name,alert_ts\n{day},m,a,{day}T00:00:00Z\n")
    return path


def test_it_is_the_first_month_with_calls_and_moves_to_earlier_ones_alone(home: Path, quantbot: Quantbot) -> None:
    assert first_of(home) == "2024-01"
    for day, first in (("2024-06-01", "2024-01"), ("2023-11-05", "2023-11"), ("2024-01-01", "2023-11")):
        assert quantbot("ingest", "calls", calls_of(home, day)).status == 0
        assert first_of(home) == first
    (home / "data/alerts.duckdb").unlink()
    assert quantbot("ingest", "calls", calls_of(home, "2024-06-01")).status == 0
    assert first_of(home) == "2023-11", "no partition that was made is lost"


def test_a_setting_and_a_home_without_calls_say_it_themselves(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_of(tmp_path / "new") == "2017-01"
    (home / "data/.first-month").write_text("not a month; DROP TABLE")
    assert first_of(home) == "2017-01"
    monkeypatch.setenv("QUANTBOT_PARTITIONS_START", "2022-02")
    assert first_of(home) == "2022-02"


def test_a_home_made_earlier_gets_its_note_at_the_first_use(home: Path) -> None:
    (home / "data/.first-month").unlink()
    with open_instance(Home(Settings(home=home))):
        assert first_of(home) == "2024-01"


@pytest.mark.torture
def test_a_ui_that_runs_serves_an_earlier_month_soon(home: Path, quantbot: Quantbot) -> None:
    ask = """{ assetNodeOrError(assetKey: {path: ["truth", "paths"]}) { ... on AssetNode { partitionKeys } } }"""
    server = quantbot_ui(home)

    def first() -> str:
        return str((server.ask(ask)["assetNodeOrError"].get("partitionKeys") or [""])[0])

    try:
        server.wait("code location", server.locations)
        assert first() == "2024-01"
        assert quantbot("ingest", "calls", calls_of(home, "2023-11-05")).status == 0
        server.wait("earlier month", lambda: first() == "2023-11", 180)
    finally:
        server.stop()
