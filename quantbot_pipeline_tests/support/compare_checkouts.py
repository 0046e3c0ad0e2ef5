"""Whether two checkouts say the same about the same inputs: every number, row and sentence of a fixed sample home.

    python -m quantbot_pipeline_tests.support.compare_checkouts OLD/.venv/bin/quantbot NEW/.venv/bin/quantbot

It prints a line per compared thing, and exits 1 naming what differs. It runs the two as programs and imports neither.
Left out is what two runs of one checkout do not share: ids, times of the clock, durations, paths of the home, bytes and
checksums of files that hold ids. Left out is also what names the code: `git_*` and `versions`. The errors of a run
are compared by row, since their hash covers the clock. A command that only the new checkout has is not compared.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from quantbot_pipeline_tests.support.sample_files import CALLERS, HOUR_MS, MONTHS, Inputs, write_inputs

SHOWN = 3  # differences that are spelled out per compared thing

# What two runs of one checkout do not share, wherever it stands. `created_at` of a call is an input and stays.
UNSHARED = frozenset((
    "created_at", "started_at", "completed_at", "cataloged_at", "detected_at", "built_at", "timestamp", "git_commit", "git_branch",
    "git_dirty", "elapsed_ms", "avg_total_ms", "bytes", "sha256",
))  # fmt: skip  # a table: what belongs together stands on one line
PROSE = frozenset(("does",))  # says in words what a schedule is for; it may be said better
RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DURATION = re.compile(r"\b\d+(\.\d+)? (ms|s)\b")
DASHBOARD_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
NO_SUCH_COMMAND = "No such command"

SMALL_GRID = {
    "stops": [0.1, 0.2],
    "take_profits": [1.0, None],
    "holds_ms": [HOUR_MS],
    "activations": [0.2],
    "trails": [0.05],
}
POLICIES = (
    {"kind": "time_stop", "max_hold_ms": HOUR_MS},
    {"kind": "combo", "policies": [
        {"kind": "trailing_stop", "activation_pct": 0.1, "trail_pct": 0.05},
        {"kind": "ladder", "levels": [{"multiple": 1.3, "fraction": 0.4}, {"multiple": 2, "fraction": 0.4}]},
    ]},
)  # fmt: skip  # a table: what belongs together stands on one line


class Step(NamedTuple):
    """One call of `quantbot`. Rows that come in the order of ids or of the clock are sorted before they are compared."""

    name: str
    arguments: tuple[str, ...]
    ordered: bool = True
    unshared: frozenset[str] = UNSHARED


def main() -> int:
    """Compare, print a line per thing, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="the quantbot executable of the checkout before")
    parser.add_argument("new", type=Path, help="the quantbot executable of the checkout after")
    parser.add_argument(
        "--folder", type=Path, help="keep the two homes in this empty folder (default: a temporary one)"
    )
    given = parser.parse_args()
    for program in (given.old, given.new):
        if not os.access(program, os.X_OK):
            parser.error(f"{program}: not an executable; give the path of a checkout's .venv/bin/quantbot")
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        if any(given.folder.iterdir()):
            parser.error(f"{given.folder}: not empty; give a new folder with --folder")
        return compare(given.old, given.new, given.folder.absolute())
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        return compare(given.old, given.new, Path(folder))


def compare(old: Path, new: Path, folder: Path) -> int:
    """Make the home with both checkouts, print what agrees and what differs; returns the exit status."""
    inputs = write_inputs(folder / "inputs")
    with ThreadPoolExecutor(2) as pool:
        before, after = pool.map(
            lambda which: Recording(which[1].absolute(), folder / which[0], inputs).record(),
            [("old", old), ("new", new)],
        )
    for side, recorded in (("old", before), ("new", after)):  # to look closer at what differs
        (folder / side / "recorded.json").write_text(json.dumps(recorded, indent=1, ensure_ascii=False), "utf-8")
    differing = []
    for name, value in before.items():
        if value is None:
            print(f"skipped  {name}: the old checkout has no such command")
            continue
        found = list(islice(differences(value, _comparable(name, value, after.get(name))), SHOWN + 1))
        if not found:
            print(f"same     {name}{_size(value)}")
            continue
        differing.append(name)
        print(f"DIFFERS  {name}")
        for line in found[:SHOWN]:
            print(f"           {line}")
        if len(found) > SHOWN:
            print("           … and more")
    print(
        f"left out: {', '.join(sorted(UNSHARED | PROSE))}, timing_*, versions, logs, durations, the hash of errors (their rows are compared); "
        "ids of runs and paths of the home are compared by name"
    )
    if differing:
        print(f"{len(differing)} of {len(before)} things differ: {', '.join(differing)}")
        return 1
    print(f"all {len(before)} things agree")
    return 0


def _size(value: Any) -> str:
    rows = value.get("output") if isinstance(value, dict) else value
    return f" ({len(rows)} rows)" if isinstance(rows, list) else ""


def _comparable(name: str, old: Any, new: Any) -> Any:
    """What of the new checkout's answer the old one has, too: further schedules and sensors are no difference."""
    if not name.startswith("automation") or new is None:
        return new
    known = {(row["kind"], row["name"]) for row in old["output"]}
    return new | {"output": [row for row in new["output"] if (row["kind"], row["name"]) in known]}


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """One line per place at which two JSON values differ; 1 and 1.0 do, since their types do."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if key not in new or key not in old:
                yield f"{where}/{key}: only in the {'old' if key in old else 'new'} one"
            else:
                yield from differences(old[key], new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            alone = next((row for row in chain(old, new) if row not in old or row not in new), None)
            yield f"{where}: {len(old)} rows before, {len(new)} after; the first that one lacks: {_short(alone)}"
        for nth, (left, right) in enumerate(zip(old, new, strict=False)):
            yield from differences(left, right, f"{where}[{nth}]")
    elif type(old) is not type(new) or old != new:
        yield f"{where}: {_short(old)} before, {_short(new)} after"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else f"{text[:300]}…"


# --- what is asked ----------------------------------------------------------------------------------------------------


def ingest_steps(inputs: Inputs) -> Iterator[Step]:
    """Every format in, the same again, newer rows, another interval; and what is refused."""
    calls, candles = [str(path) for path in inputs.calls], [str(path) for path in inputs.candles]
    printed = ("--output", "json")
    yield Step("ingest calls", ("ingest", "calls", *calls, *printed))
    yield Step("ingest calls again", ("ingest", "calls", *calls, *printed))
    yield Step("ingest calls telegram", ("ingest", "calls", str(inputs.telegram), "--format", "telegram", *printed))
    yield Step("ingest candles", ("ingest", "candles", *candles, "--interval", "5m", *printed))
    yield Step("ingest candles newer", ("ingest", "candles", str(inputs.newer), "--interval", "5m", *printed))
    yield Step("ingest candles 1h", ("ingest", "candles", str(inputs.hourly), "--interval", "1h", *printed))
    yield Step("refused: ingest calls", ("ingest", "calls", str(inputs.newer)))
    yield Step("refused: ingest candles", ("ingest", "candles", str(inputs.telegram), "--interval", "5m"))


def backtest_steps() -> Iterator[Step]:
    """Every kind of run, each with its defaults and with options that change its numbers."""
    months = ("--from", MONTHS[0], "--to", MONTHS[-1])
    policies = tuple(chain.from_iterable(("--policy", json.dumps(policy)) for policy in POLICIES))
    small = ("--grid", json.dumps(SMALL_GRID))
    kinds: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("path-only", "path-only", months),
        (
            "path-only of days",
            "path-only",
            ("--from", "2025-01-10", "--to", "2025-02-10", "--activity-move-pct", "0.3"),
        ),
        ("path-only 1h", "path-only", (*months, "--interval", "1h", "--entry", "close", "--latency-ms", "0")),
        ("policy", "policy", (*months, *policies, "--both-orders")),
        ("policy of defaults", "policy", (*months, "--intrabar", "optimistic", "--stop-slippage-bps", "25")),
        ("optimize", "optimize", (*months, *small, "--constraints", '{"min_trades": 3}', "--objective", "median")),
        ("full", "full", (*months, "--horizon-hours", "24", "--min-coverage", "0.5", *small)),
        ("baseline", "baseline", (*months, "--taker-fee-bps", "100")),
        ("walk-forward", "walk-forward", (*months, *small, "--rolling-months", "1")),
    )
    for name, command, options in kinds:
        yield Step(name, ("backtest", command, *options, "--format", "json"))
    yield Step("backfill", ("backfill", *months, "--format", "json"))
    yield Step("backfill only changed", ("backfill", *months, "--only-changed", "--format", "json"))
    yield Step("refused: policy", ("backtest", "policy", *months, "--policy", '{"kind": "hope"}'))
    yield Step("refused: grid", ("backtest", "optimize", *months, "--grid", '{"stops": [2]}'))
    yield Step("refused: days", ("backtest", "full", "--from", "2025-02", "--to", "2025-01"))


def report_steps() -> Iterator[Step]:
    """Every command that reads."""
    printed = ("--format", "json")
    yield Step("catalog-sync", ("backtest", "catalog-sync", *printed))
    yield Step("catalog-sync --rebuild", ("backtest", "catalog-sync", "--rebuild", *printed))
    yield Step("catalog-sync --stats", ("backtest", "catalog-sync", "--stats", *printed))
    yield Step("catalog-query", ("backtest", "catalog-query", "--limit", "1000", *printed))
    yield Step(
        "catalog-query --run-type",
        ("backtest", "catalog-query", "--run-type", "optimization", "--limit", "3", *printed),
    )
    yield Step("verify", ("backtest", "verify", *printed), ordered=False)
    yield Step("leaderboard", ("leaderboard", *printed))
    yield Step("leaderboard 1h", ("leaderboard", "--interval", "1h", *printed))
    yield Step("leaderboard csv", ("leaderboard", "--format", "csv"))
    yield Step("frontier", ("frontier", "--limit", "1000", *printed))
    yield Step("frontier of a caller", ("frontier", "--caller", CALLERS[0], "--month", MONTHS[1], *printed))
    yield Step("frontier v1-baseline", ("frontier", "--strategy", "v1-baseline", "--limit", "1000", *printed))
    yield Step("frontier table", ("frontier", "--limit", "3"))
    yield Step("walk-forward report", ("walk-forward", *printed))
    yield Step("walk-forward csv", ("walk-forward", "--format", "csv"))
    yield Step("dashboard", ("dashboard", *printed))
    yield Step("automation status", ("automation", "status", *printed))
    yield Step("automation on --dry-run", ("automation", "on", "--dry-run", *printed))
    yield Step("prune none", ("prune", "--before", "2020-01-01", *printed))
    yield Step("refused: query", ("query", "SELECT * FROM read_text('/etc/hostname')"))
    yield Step("refused: month", ("frontier", "--month", "2025-13"))


def view_steps(tables: Iterable[str]) -> Iterator[Step]:
    """All rows of every table and view of the catalog."""
    for table in tables:
        # The calls' `created_at` is an input; everywhere else it is the clock.
        unshared = UNSHARED - {"created_at"} if table == "alerts" else UNSHARED
        yield Step(f"query {table}", ("query", f'FROM "{table}"', "--format", "json"), ordered=False, unshared=unshared)


LAST = Step("prune", ("prune", "--before", "2100-01-01", "--force", "--format", "json"), ordered=False)
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"


class Recording:
    """Everything that one checkout says about the inputs, by name, without what two runs do not share."""

    def __init__(self, program: Path, folder: Path, inputs: Inputs) -> None:
        folder.mkdir()
        self.program, self.home, self.inputs = program, folder / "home", inputs
        self.labels: dict[str, str] = {}  # {run id: what the run is called here}
        self.found: dict[str, Any] = {}

    def record(self) -> dict[str, Any]:
        """Run every step; returns {name: answer}. A command that is not there is None."""
        for step in chain(ingest_steps(self.inputs), backtest_steps()):
            self._take(step)
        self._take_stores()
        self._take_runs()
        for step in report_steps():
            self._take(step)
        self._take_dashboard()
        listed = self._run(("query", TABLES, "--format", "json"))
        if listed.returncode:
            sys.exit(f"{self.program}: cannot list the tables of its catalog: {listed.stderr.strip()}")
        tables = [row["table_name"] for row in json.loads(listed.stdout)]
        for step in chain(view_steps(tables), [LAST]):
            self._take(step)
        return self.found

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("QUANTBOT_", "DAGSTER_", "PYTHON"))
        }
        return subprocess.run(
            [self.program, *arguments, "--home", self.home], capture_output=True, text=True, check=False, cwd=self.home.parent,
            env=clean | {"COLUMNS": "200", "NO_COLOR": "1"},
        )  # fmt: skip  # a table: what belongs together stands on one line

    def _take(self, step: Step) -> None:
        done = self._run(step.arguments)
        if NO_SUCH_COMMAND in done.stderr:
            self.found[step.name] = None
            return
        try:
            output = json.loads(done.stdout)
        except ValueError:
            output = done.stdout.splitlines()
        self._name_runs(step, output)
        self.found[step.name] = {
            "status": done.returncode,
            "output": self._shared(output, step.unshared | PROSE, ordered=step.ordered),
            "said": [DURATION.sub("… s", self._text(line)) for line in done.stderr.splitlines()],
        }

    def _name_runs(self, step: Step, output: Any) -> None:
        """Call the runs that a command made by its name, kind and month: so both checkouts call them alike."""
        if step.arguments[0] not in ("backtest", "backfill") or not isinstance(output, list):
            return
        for row in output:
            if isinstance(row, dict) and {"run_id", "run_type", "artifacts"} <= row.keys():
                label = f"{step.name}/{row['month']} {row['run_type']} of {'+'.join(row['artifacts'])}"
                self.labels.setdefault(row["run_id"], label)

    def _text(self, text: str) -> str:
        """The text with the home's path and the ids of runs replaced by names."""
        named = RUN_ID.sub(lambda found: self.labels.get(found[0], "some-id"), text)
        return named.replace(str(self.home), "HOME").replace(str(self.home.parent), "FOLDER")

    def _shared(self, value: Any, unshared: frozenset[str], *, ordered: bool = True) -> Any:
        """The JSON value without the keys `unshared`, nor the hash of a run's errors, which covers the clock."""
        if isinstance(value, dict):
            if isinstance(errors := value.get("errors"), dict):
                value = value | {"errors": {key: part for key, part in errors.items() if key != "content_sha256"}}
            return {
                key: self._shared(json.loads(part) if key.endswith("_json") and part else part, unshared)
                for key, part in value.items()
                if key not in unshared and not key.startswith("timing_")
            }
        if isinstance(value, list):
            kept = [self._shared(part, unshared) for part in value]
            return kept if ordered else sorted(kept, key=lambda part: json.dumps(part, sort_keys=True))
        return self._text(value) if isinstance(value, str) else value

    def _take_stores(self) -> None:
        with duckdb.connect(str(self.home / "data" / "alerts.duckdb"), read_only=True) as con:
            for table, clock in (("alerts", "EXCLUDE (ingested_at)"), ("rejected_alerts", "")):
                rows = con.sql(f"SELECT * {clock} FROM {table} ORDER BY ALL").to_arrow_table().to_pylist()
                self.found[f"store of calls: {table}"] = rows
        store = self.home / "data" / "candles"
        for path in sorted(store.glob("interval=*/month=*/*.parquet")):
            name = f"store of candles: {path.relative_to(store)}"
            with pq.ParquetFile(path) as file:
                content = (file.metadata.metadata or {}).get(b"quantbot.content_sha256", b"").decode()
                rows = file.metadata.num_rows
                self.found[name] = {"rows": rows, "content_sha256": content} if content else file.read().to_pylist()

    def _take_runs(self) -> None:
        for path in self.home.glob("runs/*/run_id=*/run.json"):
            manifest = json.loads(path.read_text("utf-8"))
            label = self.labels.get(manifest["run_id"], f"unnamed {manifest['run_type']}")
            kept = {key: manifest[key] for key in ("run_type", "month", "status", "schema_version", "error")}
            kept |= {
                "config_hash": manifest["parameters"]["config_hash"],
                "parameters": manifest["parameters"],
                "dataset": manifest["dataset"],
                "dagster": {key: manifest["dagster"][key] for key in ("partition_key", "asset_keys")},
                "files": sorted(
                    str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file()
                ),
                "artifacts": {
                    name: {key: entry[key] for key in ("rows", "path", "content_sha256")}
                    for name, entry in manifest["artifacts"].items()
                },
            }
            self.found[f"run {label}"] = self._shared(kept, frozenset())
        # The file system lists runs by their ids.
        self.found = dict(sorted(self.found.items(), key=lambda item: item[0] if item[0].startswith("run ") else ""))

    def _take_dashboard(self) -> None:
        page = (self.home / "data" / "dashboard.html").read_text("utf-8")
        data = DASHBOARD_DATA.search(page)
        self.found["dashboard's data"] = None if data is None else self._shared(json.loads(data[1]), UNSHARED)


if __name__ == "__main__":
    sys.exit(main())
