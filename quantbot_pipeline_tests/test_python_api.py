"""The public Python API: its page and its notebook run, and its frames hold what the commands print."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from quantbot_pipeline import Home
from quantbot_pipeline.errors import InputError

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def lab(examples_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home like the demo's, of three months; the page makes runs in it."""
    return shutil.copytree(examples_lab, tmp_path_factory.mktemp("python") / "home")


def printed(home: Path, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "quantbot_pipeline", *arguments, "--format", "json", "--home", str(home)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip  # a table: what belongs together stands on one line
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


FRAMES: dict[str, tuple[Callable[[Home], pd.DataFrame], list[str]]] = {
    "leaderboard": (lambda home: home.leaderboard(), ["leaderboard"]),
    "frontier": (lambda home: home.frontier(month="2026-03", limit=3), ["frontier", "--month", "2026-03", "--limit", "3"]),
    "walk_forward": (lambda home: home.walk_forward(), ["walk-forward"]),
    "policies": (lambda home: home.policies(caller="sample:coin_flip"), ["policies", "--caller", "sample:coin_flip"]),
    "models": (lambda home: home.models(), ["models"]),
    "anomalies": (lambda home: home.anomalies(kind="unit_change"), ["anomalies", "--kind", "unit_change"]),
    "catalog_query": (lambda home: home.catalog_query(limit=20), ["backtest", "catalog-query"]),
    "sql": (
        lambda home: home.sql("SELECT * EXCLUDE run_id FROM trades ORDER BY ALL LIMIT 50"),
        ["query", "SELECT * EXCLUDE run_id FROM trades ORDER BY ALL LIMIT 50"],
    ),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_holds_what_the_command_prints(lab: Path, name: str) -> None:
    made, arguments = FRAMES[name]
    frame = made(Home(lab))
    rows = printed(lab, *arguments)
    assert len(rows) == len(frame) > 0
    assert list(rows[0]) == list(frame.columns)
    for row, record in zip(rows, frame.to_dict("records"), strict=True):
        for column, value in record.items():
            key = str(column)
            if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
                assert row[key] is None, key
            elif isinstance(value, pd.Timestamp):
                assert pd.Timestamp(row[key]).tz_localize(None) == value.tz_localize(None), key
            else:
                assert row[key] == value, key


def test_trades_are_those_of_the_artifact_with_utc_times_and_the_runs_behind_them(lab: Path) -> None:
    home = Home(lab)
    trades = home.trades(month="2026-03")
    raw = home.sql("SELECT count(*) AS n, sum(entry_ts_ms)::BIGINT AS entries FROM trades")
    assert 0 < len(trades) < int(raw["n"].iloc[0])
    assert str(trades["entry_ts_ms"].dtype) == "datetime64[ms, UTC]"
    assert str(trades["time_exposed_ms"].dtype) == "Int64"
    assert set(trades["run_id"]) <= set(trades.attrs["runs"])
    (run_id,) = set(trades["run_id"])
    run = home.run(run_id)
    assert trades.attrs["config_hashes"][run_id] == run.manifest.parameters["config_hash"]
    own = run.frame("trades").set_index(["policy_id", "call_id"])["realized_return_bps"]
    pd.testing.assert_series_equal(
        own.sort_index(), trades.set_index(["policy_id", "call_id"])["realized_return_bps"].sort_index()
    )


def test_calls_are_a_frame(lab: Path) -> None:
    calls = Home(lab).calls.frame(month="2026-03")
    assert str(calls["alert_ts_ms"].dtype) == "datetime64[ms, UTC]"
    assert set(calls["alert_ts_ms"].dt.strftime("%Y-%m")) == {"2026-03"}
    assert len(Home(lab).calls.frame()) > len(calls)
    with pytest.raises(InputError, match="is not a day"):
        Home(lab).calls.frame(month="March")


def blocks() -> list[str]:
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.M | re.S)


def cells() -> list[str]:
    notebook = json.loads((REPOSITORY / "examples" / "notebooks" / "lab.ipynb").read_text(encoding="utf-8"))
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"]), "committed without outputs"
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("texts", [blocks, cells], ids=["page", "notebook"])
def test_the_page_and_the_notebook_run(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("QUANTBOT_HOME", str(lab))
    monkeypatch.setenv("DAGSTER_HOME", str(lab))
    monkeypatch.chdir(tmp_path)
    program = "\n".join(texts())
    assert program.count("\n") > 10
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_is_light_until_the_first_frame() -> None:
    code = "import sys; from quantbot_pipeline import Home; Home('.'); print(sorted({'pandas', 'dagster', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
