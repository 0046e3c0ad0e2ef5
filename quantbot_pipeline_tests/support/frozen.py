"""The frozen homes: a small home as one released version wrote it, and what that version said of it.

`python -m quantbot_pipeline_tests.support.frozen` writes the archive of the version that runs; do so once for every release, from
its commit. Belongs here: making and unpacking. What later versions must find in them is in `quantbot_pipeline_tests/frozen/`.
"""

import hashlib
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from quantbot_pipeline.api import Home
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.chosen import chosen_run
from quantbot_pipeline.config import make_config
from quantbot_pipeline.orchestration.launch import prepare_instance
from quantbot_pipeline.runs.notes import name_run, note_run, tag_run
from quantbot_pipeline.version import __version__
from quantbot_pipeline_tests.support.builders import Row, call, candle, candles, commit_run, make_home
from quantbot_pipeline_tests.support.markets import SEARCH

ARCHIVES = Path(__file__).parents[1] / "frozen"
LARGEST = 200_000  # bytes of an archive
SAID = "said.json"  # what the version said of its home
MONTHS = ("2024-01", "2024-02")
POLICY = {"kind": "fixed_stop", "stop_pct": 0.2, "take_profit_pct": 0.5}
KINDS = ("path-only", "policy", "full", "v1-baseline", "walk-forward", "evidence")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a frozen home; return its directory."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "home"


def make(home: Path) -> Home:
    """Make a home that has one of everything: all kinds of runs, a failed one, a quarantined one, names, rejected rows."""
    calls: list[Row] = []
    rows: list[Row] = [candle("broken", 1_704_067_200_000, -1.0)]
    for month in MONTHS:
        for i in range(8):
            mint = f"{month}-token-{i}"
            calls.append(call(mint, f"{month}-{3 + 3 * i:02}T06:02", ("alice", "bob")[i % 2], call_id=f"{month}-{i}"))
            if i:
                rows += [_rounded(row) for row in candles(mint, f"{month}-{3 + 3 * i:02}", 80, interval="1h")]
    calls.append(call("", f"{MONTHS[0]}-05", "nobody"))
    make_home(home, calls, rows, interval="1h")
    lab = Home(home, threads=1)
    for month in MONTHS:
        for kind in KINDS:
            config: dict[str, Any] = {"interval": "1h"} | ({} if kind in ("path-only", "v1-baseline") else SEARCH)
            config |= {"policies": [POLICY]} if kind in ("policy", "full") else {}
            run_month(lab, kind, month, make_config(config))
    commit_run(lab.runs.folder, MONTHS[1], status="failed", error="ValueError: made up")
    (lab.runs.folder / MONTHS[0] / "run_id=00000000-0000-0000-0000-00000000beef").mkdir()
    lab.sync()
    chosen = chosen_run(lab.catalog, MONTHS[0], "full")["run_id"]
    name_run(lab.runs.folder, chosen, "the-first")
    tag_run(lab.runs.folder, chosen, ["kept", "small"])
    note_run(lab.runs.folder, chosen, "frozen with its version")
    lab.sync()
    os.environ["DAGSTER_HOME"] = str(home)
    prepare_instance(lab)
    return lab


def _rounded(row: Row) -> Row:
    """The candle with few digits, so that the archive is small."""
    low, high = round(row["low"], 2) - 0.01, round(row["high"], 2) + 0.01
    return row | {name: round(row[name], 2) for name in ("open", "close")} | {"low": low, "high": high}


def said_of(lab: Home) -> dict[str, Any]:
    """What a version says of a home, as JSON: reports, and for each artifact its columns, rows and values."""
    views = {name: lab.sql(f"SELECT * FROM {name} ORDER BY ALL") for name in ARTIFACTS}
    return {
        "version": __version__,
        "views": {name: {"columns": list(frame.columns), "values": hash_of(frame)} for name, frame in views.items()},
        "runs": _records(lab.catalog_query(limit=1000).drop(columns=["run_dir"])),
        "leaderboard": _records(lab.leaderboard()),
        "frontier": _records(lab.frontier()),
        "walk_forward": _records(lab.walk_forward()),
        "policies": _records(lab.policies()),
        "calls": _records(lab.calls.frame()),
    }


def hash_of(frame: Any) -> str:
    """The hash of a frame's values, whatever the order of its rows; a null is none of its column's values."""
    lines = sorted(json.dumps(record, sort_keys=True) for record in _records(frame))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _records(frame: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso", double_precision=12))
    return records


def main() -> None:
    """Write the archive of this version into `quantbot_pipeline_tests/frozen/`, unless it is there."""
    archive = ARCHIVES / f"home-{__version__}.tar.xz"
    if archive.exists():
        sys.exit(f"{archive} is there already: what is frozen stays")
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        lab = make(home)
        (home / SAID).write_text(json.dumps(said_of(lab), indent=1, sort_keys=True))
        with tarfile.open(archive, "w:xz", preset=9) as tar:
            tar.add(home, "home", filter=_without_owner)
    print(f"{archive}: {archive.stat().st_size:,} bytes")
    if archive.stat().st_size > LARGEST:
        sys.exit(f"larger than {LARGEST:,} bytes")


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if "/inbox" in entry.name or entry.name.endswith((".lock", ".log")) else entry


if __name__ == "__main__":
    main()
