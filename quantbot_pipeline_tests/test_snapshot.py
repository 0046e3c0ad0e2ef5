"""The Dagster definitions are those of the snapshot: what changes in the UI is seen in a review, and nothing changes unseen."""

import difflib
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline_tests.support.snapshot import described

SNAPSHOT = Path(__file__).parent / "snapshots" / "definitions.txt"
MEND = "read what changed, then run `pytest --snapshot-update quantbot_pipeline_tests/test_snapshot.py`"


def test_the_definitions_are_those_of_the_snapshot(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBOT_PARTITIONS_START", "2017-01")  # `make demo` makes the checkout a home with calls
    now = described(build_defs())
    if request.config.getoption("--snapshot-update"):
        SNAPSHOT.write_text(now, encoding="utf-8")
    before = SNAPSHOT.read_text(encoding="utf-8")
    changed = difflib.unified_diff(before.splitlines(), now.splitlines(), SNAPSHOT.name, "the code", lineterm="", n=4)
    assert before == now, "\n".join([MEND, *changed])


def test_a_snapshot_tells_what_differs() -> None:
    @dg.asset(
        key=["made", "up"], group_name="made", partitions_def=dg.MonthlyPartitionsDefinition("2024-01", fmt="%Y-%m")
    )
    def up() -> int:
        return 1

    @dg.asset_check(asset=up, blocking=True)
    def sound() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    job = dg.define_asset_job("make_up", [up])
    schedule = dg.ScheduleDefinition(name="often", job=job, cron_schedule="*/5 * * * *", execution_timezone="UTC")
    text = described(dg.Definitions(assets=[up], asset_checks=[sound], jobs=[job], schedules=[schedule]))
    for lines in (
        "  made/up\n    group: made\n    op: made__up\n    partitions: Monthly, starting 2024-01 UTC.\n",
        "  made/up sound\n    blocking: yes\n",
        "  make_up\n    assets: made/up\n    steps: made__up, made__up_sound\n",
        "  often\n    cron: */5 * * * * UTC\n    job: make_up\n    at first: STOPPED\n",
    ):
        assert lines in text, text
