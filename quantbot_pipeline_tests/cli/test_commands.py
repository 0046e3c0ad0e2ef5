"""The command line as a newcomer meets it: what it prints where, its exit statuses, its one line for every mistake.

Most commands run as `main()` in this process; those for which the process matters (start-up, terminal, rights, Ctrl-C,
two at once) run the installed entry point.
"""

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.durable import locked
from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.closings import widest_kinds
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import HOSTILE, call, candles, make_home, write_csv, write_jsonl
from quantbot_pipeline_tests.support.labs import (
    CALLERS,
    CALLS_PER_MONTH,
    MONTHS,
    QUANTBOT,
    Done,
    environment,
    finish,
    run,
    run_dirs,
    start,
)

JANUARY = ("--from", "2024-01", "--to", "2024-01")
ALL = ("--from", "2024-01", "--to", "2024-06")


def reported_months(asset: str = "truth/paths") -> set[str]:
    """The months that the instance of the home shows as materialized."""
    with dg.DagsterInstance.get() as instance:
        return instance.get_materialized_partitions(dg.AssetKey(asset.split("/")))


def dagster_runs() -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count()


# --- what is printed --------------------------------------------------------------------------------------------------


def run_on_a_terminal(home: Path, *arguments: object) -> Done:
    """A process whose standard error is a terminal and whose standard output is not, as with `quantbot … > file`."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [QUANTBOT, *map(str, arguments)], env=environment(home, TERM="xterm"), cwd=home, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip  # a table: what belongs together stands on one line
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux reports the end of a terminal
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    os.close(ours)
    return Done(*finish(process)[:2], shown.decode())


def test_json_is_one_object_per_committed_run_and_the_instance_shows_them(home: Path) -> None:
    done = run_on_a_terminal(home, "backtest", "path-only", *ALL, "--interval", "5m", "--format", "json")
    runs = done.json()
    # The progress bar, only where it belongs, month by month although Dagster holds standard error meanwhile.
    assert [n for n in range(5) if f"{n}/4" in done.err] == [0, 1, 2, 3, 4] and "/min" in done.err
    assert [r["month"] for r in runs] == list(MONTHS)
    for r in runs:
        assert {"run_id", "run_type", "month", "status", "calls", "run_dir", "artifacts"} <= r.keys()
        assert (r["run_type"], r["status"], r["calls"]) == ("path-only", "completed", CALLS_PER_MONTH)
        folder = Path(r["run_dir"])
        assert folder == home / "runs" / r["month"] / f"run_id={r['run_id']}"
        manifest = check_run(folder)
        files = {name: pq.read_metadata(folder / e.path).num_rows for name, e in manifest.artifacts.items()}
        assert r["artifacts"] == files
        assert files["alerts"] == CALLS_PER_MONTH
    assert reported_months() == reported_months("inputs/alerts") == set(MONTHS)
    assert dagster_runs() == 2  # one per stretch of months with calls


def test_csv_is_complete_and_parses(quantbot: Quantbot) -> None:
    done = quantbot("backtest", "policy", "--from", "2024-01", "--to", "2024-02", "--format", "csv")
    assert (done.status, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["month"] for row in rows] == ["2024-01", "2024-02"]
    assert list(rows[0])[:7] == ["run_id", "run_type", "month", "status", "calls", "excluded", "run_dir"]
    assert json.loads(rows[0]["artifacts"])["alerts"] == CALLS_PER_MONTH


def test_a_table_is_for_people(quantbot: Quantbot) -> None:
    done = quantbot("backtest", "path-only", *JANUARY)
    assert done.status == 0
    assert "2024-01" in done.out
    assert "completed" in done.out
    assert done.err == ""
    assert "\x1b" not in done.out
    # The rows of errors.parquet are warnings and remarks as well.
    assert "notes" in done.out and "errors" not in done.out


@pytest.mark.parametrize("arguments", [(), ("backtest",), ("ingest",)])
def test_without_arguments_the_help_is_shown(quantbot: Quantbot, arguments: tuple[str, ...]) -> None:
    done = quantbot(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Usage:" in done.err
    assert "Traceback" not in done.err


def test_help_is_an_answer(quantbot: Quantbot) -> None:
    done = quantbot("backtest", "path-only", "--help")
    assert (done.status, done.err) == (0, "")
    for option in ("--from", "--to", "--interval", "--calls-from-duckdb", "--format", "--home"):
        assert option in done.out


# --- a newcomer's mistakes --------------------------------------------------------------------------------------------


def mistaken_files(folder: Path) -> None:
    """One file for every way in which an input can be wrong."""
    good = {"caller_name": "a", "mint": "m", "alert_ts_ms": 1_700_000_000_000}
    write_csv(folder / "good.csv", [good])
    write_csv(folder / "no_time.csv", [{"caller_name": "a", "mint": "m"}])
    write_csv(folder / "no_mint.csv", [{"caller_name": "a", "alert_ts_ms": 1_700_000_000_000}])
    (folder / "empty.csv").touch()
    (folder / "empty.jsonl").touch()
    (folder / "header.csv").write_text("caller_name,mint,alert_ts_ms\n")
    write_csv(folder / "mixed.csv", [good, good | {"alert_ts_ms": 1_700_000_000}])
    write_csv(folder / "seconds.csv", [good | {"alert_ts_ms": 1_700_000_000}])
    (folder / "torn.parquet").write_bytes(b"PAR1" + bytes(range(256)) * 4)
    (folder / "notes.docx").write_text("calls")
    (folder / "nothing_inside").mkdir()
    five = candles("m", "2024-01-01", 60)
    write_csv(folder / "five.csv", five)
    write_csv(folder / "hour.csv", candles("m", "2024-01-01", 60, interval="1h"))
    write_csv(folder / "no_close.csv", [{k: v for k, v in row.items() if k != "close"} for row in five])
    write_csv(folder / "mixed_candles.csv", [*five, *({**row, "ts_ms": row["ts_ms"] // 1000} for row in five)])
    (folder / "interval=1m").mkdir()
    write_csv(folder / "interval=1m" / "five.csv", five)
    (folder / "policy.json").write_text('{"kind": "fixed_stop", "stop_pct": 0.2')
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "text.duckdb").write_text("not a database")


BACKTEST = ("backtest", "path-only", *JANUARY)
POLICY = ("backtest", "policy", *JANUARY, "--policy")
MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "missing file": (("ingest", "calls", "nowhere.csv"), ("nowhere.csv", "no such file")),
    "missing candle file": (("ingest", "candles", "nowhere", "--interval", "5m"), ("nowhere", "no such file")),
    "missing column": (("ingest", "calls", "no_mint.csv"), ("no_mint.csv", "mint")),
    "missing time": (("ingest", "calls", "no_time.csv"), ("no_time.csv", "alert_ts_ms")),
    "missing close": (("ingest", "candles", "no_close.csv", "--interval", "5m"), ("no_close.csv", "close", "--map")),
    "empty csv": (("ingest", "calls", "empty.csv"), ("empty.csv", "empty")),
    "empty jsonl": (("ingest", "calls", "empty.jsonl"), ("empty.jsonl", "empty")),
    "no rows": (("ingest", "calls", "header.csv"), ("header.csv", "no rows")),
    "empty folder": (("ingest", "calls", "nothing_inside"), ("nothing_inside", "no file")),
    "unknown type": (("ingest", "calls", "notes.docx"), ("notes.docx", "--format")),
    "mixed units": (("ingest", "calls", "mixed.csv"), ("mixed.csv", "mixes time units", "row 2")),
    "mixed candle units": (("ingest", "candles", "mixed_candles.csv", "--interval", "5m"), ("mixes time units",)),
    "wrong unit": (("ingest", "calls", "seconds.csv"), ("seconds.csv", "alert_ts_ms", "not milliseconds")),
    "unreadable Parquet": (("ingest", "calls", "torn.parquet"), ("torn.parquet", "not readable")),
    "unreadable candles": (("ingest", "candles", "torn.parquet", "--interval", "5m"), ("torn.parquet", "not readable")),
    "coarser than said": (("ingest", "candles", "hour.csv", "--interval", "5m"), ("hour.csv", "--interval 1h")),
    "finer than said": (("ingest", "candles", "five.csv", "--interval", "1h"), ("five.csv", "--interval 1h")),
    "folder says otherwise": (
        ("ingest", "candles", "interval=1m", "--interval", "5m"),
        ("interval=1m", "--interval 1m"),
    ),
    "unknown interval": (("ingest", "candles", "five.csv", "--interval", "7m"), ("7m", "--interval")),
    "no interval": (("ingest", "candles", "five.csv"), ("--interval",)),
    "unknown input format": (("ingest", "calls", "good.csv", "--format", "xml"), ("xml", "jsonl")),
    "unknown output format": ((*BACKTEST, "--format", "xml"), ("xml", "json")),
    "unknown command": (("backtset",), ("backtset",)),
    "unknown option": ((*BACKTEST, "--fast"), ("--fast",)),
    "no range": (("backtest", "path-only"), ("--from",)),
    "reversed range": (("backtest", "path-only", "--from", "2024-02-02", "--to", "2024-02-01"), ("--from", "after")),
    "bad day": (("backtest", "path-only", "--from", "2024-02-30", "--to", "2024-03"), ("2024-02-30", "YYYY-MM-DD")),
    "bad date": (("backtest", "path-only", "--from", "yesterday", "--to", "2024-03"), ("yesterday",)),
    "bad number": ((*BACKTEST, "--latency-ms", "soon"), ("--latency-ms", "integer")),
    "negative latency": ((*BACKTEST, "--latency-ms", "-1"), ("--latency-ms", "-1")),
    "endless horizon": ((*BACKTEST, "--horizon-hours", "inf"), ("--horizon-hours",)),
    "horizon of no number": ((*BACKTEST, "--horizon-hours", "nan"), ("--horizon-hours",)),
    "absurd horizon": ((*BACKTEST, "--horizon-hours", "1e12"), ("--horizon-hours 1e+12",)),
    "coverage above one": ((*BACKTEST, "--min-coverage", "1.5"), ("--min-coverage", "1.5")),
    "missing calls store": ((*BACKTEST, "--calls-from-duckdb", "other.duckdb"), ("other.duckdb", "no such file")),
    "broken calls store": ((*BACKTEST, "--calls-from-duckdb", "text.duckdb"), ("text.duckdb", "not readable")),
    "home is a file": ((*BACKTEST, "--home", "good.csv"), ("good.csv", "not a directory")),
    "torn policy": ((*POLICY, "{"), ("--policy", "JSON")),
    "a bare kind": ((*POLICY, "ladder"), ("--policy", "fixed_stop, time_stop", '{"kind": "ladder", "levels"')),
    "single quotes in JSON": ((*POLICY, "{'kind': 'time_stop'}"), ("double quotes", '{"kind": "time_stop", "max_hold_ms"')),
    "torn policy file": ((*POLICY, "@policy.json"), ("policy.json", "JSON")),
    "no policy file": ((*POLICY, "@nowhere.json"), ("nowhere.json", "No such file")),
    "binary policy file": ((*POLICY, "@binary.json"), ("binary.json", "UTF-8")),
    "key twice": ((*POLICY, '{"kind": "fixed_stop", "stop_pct": 0.1, "stop_pct": 0.2}'), ("--policy", "stop_pct", "twice")),
    "no object": ((*POLICY, "3"), ("--policy", "object")),
    "no policies": ((*POLICY, "[]"), ("--policy", "empty")),
    "no kind": ((*POLICY, '{"stop_pct": 0.1}'), ("kind",)),
    "unknown kind": ((*POLICY, '{"kind": "moon"}'), ("moon", "fixed_stop")),
    "unknown key": ((*POLICY, '{"kind": "fixed_stop", "stop_pct": 0.1, "stoppct": 1}'), ("stoppct",)),
    "missing key": ((*POLICY, '{"kind": "fixed_stop"}'), ("stop_pct",)),
    "out of range": ((*POLICY, '{"kind": "fixed_stop", "stop_pct": 1}'), ("stop_pct", "1")),
    "boolean": ((*POLICY, '{"kind": "fixed_stop", "stop_pct": true}'), ("stop_pct", "True")),
    "not a number": ((*POLICY, '{"kind": "fixed_stop", "stop_pct": NaN}'), ("stop_pct",)),
    "text": ((*POLICY, '{"kind": "time_stop", "max_hold_ms": "1h"}'), ("max_hold_ms",)),
    "part of a ms": ((*POLICY, '{"kind": "time_stop", "max_hold_ms": 0.5}'), ("max_hold_ms",)),
    "no trail": ((*POLICY, '{"kind": "trailing_stop", "activation_pct": 0.1}'), ("trail_pct",)),
    "no levels": ((*POLICY, '{"kind": "ladder", "levels": []}'), ("levels",)),
    "greedy ladder": (
        (*POLICY, '{"kind": "ladder", "levels": [{"multiple": 2, "fraction": 0.7}, {"multiple": 3, "fraction": 0.7}]}'),
        ("fraction",),
    ),
    "combo in combo": (
        (*POLICY, '{"kind": "combo", "policies": [{"kind": "combo", "policies": []}]}'),
        ("combo",),
    ),
    "one id for two": (
        (*POLICY, '[{"kind": "fixed_stop", "stop_pct": 0.1}, {"kind": "fixed_stop", "stop_pct": 0.2}]', "--policy-id", "x"),
        ("--policy-id", "2"),
    ),
    "bad constraints": (("backtest", "optimize", *JANUARY, "--constraints", '{"min_luck": 1}'), ("min_luck",)),
    "bad objective": (("backtest", "optimize", *JANUARY, "--objective", "luck"), ("luck",)),
    "bad grid": (("backtest", "optimize", *JANUARY, "--grid", '{"stops": []'), ("--grid", "JSON")),
    "no catalog": (("backtest", "catalog-query"), ("backtest_catalog.duckdb", "catalog-sync")),
    "no catalog to rank": (("leaderboard",), ("backtest_catalog.duckdb", "catalog-sync")),
    "no such runs": (("backtest", "catalog-sync", "--base-dir", "nowhere"), ("nowhere", "--base-dir")),
    "half a question": (("backtest", "catalog-query", "--run-id", "x"), ("--artifact-type",)),
    "negative limit": (("backtest", "catalog-query", "--limit", "-1"), ("--limit",)),
    "a day for a month": (("frontier", "--month", "2024-01-15"), ("--month", "YYYY-MM")),
    "forgotten @": ((*POLICY, "policy.json"), ("--policy", "write @policy.json")),
    "unknown run type": (("backtest", "catalog-query", "--run-type", "nonsense"), ("--run-type", "path-only")),
    "unknown status": (("backtest", "catalog-query", "--status", "done"), ("--status", "completed")),
    "nothing to verify": (("backtest", "verify", "nowhere"), ("nowhere",)),
    "no runs to verify": (("backtest", "verify", "nothing_inside"), ("nothing_inside", "run_id=")),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_line(quantbot: Quantbot, home: Path, mistake: str) -> None:
    mistaken_files(home)
    arguments, words = MISTAKES[mistake]
    complaint = quantbot(*arguments).complaint
    for word in words:
        assert word in complaint
    assert len(complaint) < 600
    assert run_dirs(home) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUANTBOT_THREADS", "many"),
        ("QUANTBOT_MEMORY_LIMIT", "lots"),
        ("QUANTBOT_PARTITIONS_START", "2017"),
        ("DAGSTER_HOME", "/nowhere/at/all"),
        ("DAGSTER_HOME", "relative"),
    ],
)
def test_a_wrong_variable_is_named(quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    complaint = quantbot(*BACKTEST).complaint
    assert name in complaint
    assert value in complaint


def test_mistakes_read_the_same_from_the_installed_command(home: Path) -> None:
    mistaken_files(home)
    for mistake in ("missing file", "unknown option", "unknown interval", "no kind"):
        arguments, words = MISTAKES[mistake]
        complaint = run(home, *arguments).complaint
        assert all(word in complaint for word in words)


# A launcher that gives up root's right to pass by file modes, so that they hold for root too; for others it does nothing.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


def run_unprivileged(home: Path, *command: object) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGES, *map(str, command)], env=environment(home), cwd=home.parent,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip  # a table: what belongs together stands on one line
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def locked_home(home: Path) -> Iterator[Path]:
    """The home, readable but not writable, with a subfolder and a file that nobody may read."""
    (home / "closed").mkdir()
    (home / "closed.csv").touch()
    modes = {home / "closed": 0o000, home / "closed.csv": 0o000, home / "data": 0o555, home: 0o555}
    before = {path: path.stat().st_mode for path in modes}
    for path, mode in modes.items():
        path.chmod(mode)
    yield home
    for path in reversed(modes):
        path.chmod(before[path])


def test_a_directory_without_rights_is_named(locked_home: Path) -> None:
    if run_unprivileged(locked_home, "/usr/bin/touch", locked_home / "proof").status == 0:
        pytest.skip("file modes mean nothing to this user, and it may not give that up")
    good = write_csv(locked_home.parent / "good.csv", [{"caller_name": "a", "mint": "m", "alert_ts_ms": 10**12}])
    for arguments in (
        ("ingest", "calls", good),
        ("ingest", "calls", locked_home / "closed"),
        ("ingest", "calls", locked_home / "closed.csv"),
        BACKTEST,
        ("backtest", "catalog-sync"),
    ):
        complaint = run_unprivileged(locked_home, QUANTBOT, *arguments).complaint
        assert str(locked_home) in complaint
        assert "permission" in complaint or "not readable" in complaint


# --- months that have nothing, months that fail, runs that are stopped --------------------------------------------------


def test_months_without_calls_are_fine_and_said(quantbot: Quantbot, home: Path) -> None:
    done = quantbot("backtest", "path-only", "--from", "2024-04-01", "--to", "2024-04-30", "--format", "json")
    assert done.json() == []
    assert "no calls between 2024-04-01 and 2024-04-30" in done.err
    assert run_dirs(home) == set()


def test_without_any_calls_the_next_step_is_said(quantbot: Quantbot, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    done = quantbot("backtest", "path-only", *JANUARY, "--home", tmp_path / "new", "--format", "csv")
    assert done.status == 0
    assert "no calls" in done.err


@pytest.mark.parametrize("variable", [False, True], ids=["--home", "QUANTBOT_HOME"])
@pytest.mark.parametrize(
    "command",
    [
        BACKTEST,
        ("backfill", *JANUARY),
        ("backtest", "catalog-sync"),
        ("backtest", "catalog-query"),
        ("backtest", "verify"),
        ("query", "SELECT 1"),
        ("leaderboard",),
        ("frontier",),
        ("walk-forward",),
        ("dashboard",),
        ("prune", "--before", "2024-01-01"),
        ("automation", "status"),
        ("automation", "on"),
    ],
    ids=" ".join,
)
def test_a_mistyped_home_is_no_empty_lab_and_is_not_made(
    quantbot: Quantbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], variable: bool
) -> None:
    typo = tmp_path / "hoem"
    if variable:
        monkeypatch.setenv("QUANTBOT_HOME", str(typo))
    complaint = quantbot(*command, *(() if variable else ("--home", typo))).complaint
    assert complaint.startswith(f"{typo}: no such home; check --home and QUANTBOT_HOME, or begin one with `quantbot ")
    assert not typo.exists()


def test_an_ingest_begins_a_home(quantbot: Quantbot, tmp_path: Path) -> None:
    calls = write_csv(tmp_path / "calls.csv", [{"caller_name": "a", "mint": "m", "alert_ts_ms": 1_700_000_000_000}])
    assert quantbot("ingest", "calls", calls, "--home", tmp_path / "a" / "b").status == 0
    assert (tmp_path / "a" / "b" / "data" / "alerts.duckdb").exists()


def test_part_of_a_month_counts_its_days_at_both_ends(quantbot: Quantbot) -> None:
    # The alerts are at 06:02 on the 3rd, 6th, 9th, … of the month.
    runs = quantbot("backtest", "path-only", "--from", "2024-01-06", "--to", "2024-01-09", "--format", "json").json()
    assert [r["calls"] for r in runs] == [2]


def test_a_month_that_fails_leaves_the_others_and_sets_the_exit_status(quantbot: Quantbot, home: Path) -> None:
    (home / "runs").mkdir()
    (home / "runs" / "2024-02").touch()
    done = quantbot("backtest", "path-only", *ALL, "--format", "json")
    assert done.status == 1
    assert [r["month"] for r in json.loads(done.out)] == ["2024-01", "2024-03", "2024-05"]
    assert reported_months() == {"2024-01", "2024-03", "2024-05"}
    assert done.err.count("\n") == 1
    assert done.err.startswith("quantbot: 1 of 3 months failed: 2024-02: ")


def test_unreadable_candles_are_failed_runs_that_say_which_file(quantbot: Quantbot, home: Path) -> None:
    for path in (home / "data" / "candles").glob("interval=5m/*/candles.parquet"):
        path.write_text("not a Parquet file")
    done = quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-02", "--format", "json")
    assert done.status == 1
    assert [(r["month"], r["status"]) for r in json.loads(done.out)] == [("2024-01", "failed"), ("2024-02", "failed")]
    assert done.err.startswith("quantbot: 2 of 2 months failed: ")
    assert str(home / "data" / "candles" / "interval=5m" / "month=2024-01" / "candles.parquet") in done.err
    assert done.err.count("\n") == 1
    assert reported_months() == set()


# --- configuration ----------------------------------------------------------------------------------------------------


def test_options_reach_the_run(quantbot: Quantbot, home: Path) -> None:
    (home / "two.json").write_text(
        '[{"kind": "time_stop", "max_hold_ms": 3600000}, {"kind": "fixed_stop", "stop_pct": 0.3}]'
    )
    runs = quantbot(
        "backtest", "policy", *JANUARY, "--policy", '{"kind": "fixed_stop", "stop_pct": 0.2}', "--policy", "@two.json",
        "--intrabar", "optimistic", "--entry", "close", "--latency-ms", 0, "--horizon-hours", 1.5,
        "--taker-fee-bps", 0, "--slippage-bps", 5, "--format", "json",
    ).json()  # fmt: skip  # a table: what belongs together stands on one line
    parameters = check_run(Path(runs[0]["run_dir"])).parameters
    assert {name: parameters[name] for name in ("intrabar", "entry", "latency_ms", "horizon_ms")} == {
        "intrabar": "optimistic", "entry": "close", "latency_ms": 0, "horizon_ms": 5_400_000,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert (parameters["taker_fee_bps"], parameters["slippage_bps"]) == (0, 5)
    assert runs[0]["artifacts"]["summary"] == 3
    assert runs[0]["artifacts"]["trades"] == 3 * CALLS_PER_MONTH


def test_a_policy_may_be_named(quantbot: Quantbot) -> None:
    policy = '{"kind": "fixed_stop", "stop_pct": 0.2}'
    runs = quantbot(
        "backtest", "policy", *JANUARY, "--policy", policy, "--policy-id", "mine", "--format", "json"
    ).json()
    manifest = check_run(Path(runs[0]["run_dir"]))
    assert manifest.parameters["policy_id"] == "mine"
    table = pq.read_table(Path(runs[0]["run_dir"]) / "results" / "summary.parquet", columns=["policy_id"])
    assert table["policy_id"].to_pylist() == ["mine"]


def test_calls_may_come_from_another_store(quantbot: Quantbot, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", [call("2024-01-token-0", "2024-01-03T06:02", "dora")])
    runs = quantbot("backtest", "path-only", *ALL, "--calls-from-duckdb", other.calls.path, "--format", "json").json()
    assert [(r["month"], r["calls"]) for r in runs] == [("2024-01", 1)]


def test_only_changed_keeps_the_runs(quantbot: Quantbot, home: Path) -> None:
    first = quantbot("backtest", "path-only", *JANUARY, "--format", "json").json()
    second = quantbot("backtest", "path-only", *JANUARY, "--only-changed", "--format", "json").json()
    assert [r["run_id"] for r in second] == [r["run_id"] for r in first]
    assert len(run_dirs(home)) == 1


def test_the_home_is_the_option_the_variable_or_here(
    quantbot: Quantbot, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = write_csv(tmp_path / "calls.csv", [{"caller_name": "a", "mint": "m", "alert_ts_ms": 1_700_000_000_000}])
    for name in ("option", "variable", "here"):
        (tmp_path / name).mkdir()
    assert quantbot("ingest", "calls", calls, "--home", tmp_path / "option").status == 0
    monkeypatch.setenv("QUANTBOT_HOME", str(tmp_path / "variable"))
    assert quantbot("ingest", "calls", calls).status == 0
    monkeypatch.delenv("QUANTBOT_HOME")
    monkeypatch.chdir(tmp_path / "here")
    assert quantbot("ingest", "calls", calls).status == 0
    for name in ("option", "variable", "here"):
        assert (tmp_path / name / "data" / "alerts.duckdb").exists()


def test_an_ingest_reports_what_it_did(quantbot: Quantbot, home: Path) -> None:
    path = write_jsonl(home / "more.jsonl", [call("m", "2024-07-01T00:00", "a"), call("", "2024-07-01T00:00", "a")])
    first = quantbot("ingest", "calls", path, "--format", "json").json()
    assert (first["rows"], first["inserted"], first["rejected"], first["months"]) == (2, 1, {"mint": 1}, ["2024-07"])
    again = quantbot("ingest", "calls", path, "--format", "json").json()
    assert (again["inserted"], again["unchanged"]) == (0, 1)
    assert "mint 1" in quantbot("ingest", "calls", path).out


# --- the catalog ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cataloged(home: Path) -> list[dict[str, Any]]:
    """Runs of two types and their catalog, as the command line prints them; newest run last."""
    lab = Home(Settings(home=home))
    wanted: list[tuple[str, str]] = [("path-only", month) for month in MONTHS]
    wanted += [("policy", "2024-01"), ("policy", "2024-02")]
    found = []
    for recipe, month in wanted:
        made = run_month(lab, recipe, month, make_config({}))
        assert made is not None
        rows = {name: entry.rows for name, entry in made.manifest.artifacts.items()}
        found.append(
            {
                "run_id": made.manifest.run_id,
                "run_type": recipe,
                "calls": 6,
                "run_dir": str(made.run_dir),
                "artifacts": rows,
            }
        )
    sync(lab.catalog)
    return found


def query(quantbot: Quantbot, *arguments: object) -> list[str]:
    """The run ids that a query finds."""
    return [row["run_id"] for row in quantbot("backtest", "catalog-query", *arguments, "--format", "json").json()]


def test_the_catalog_answers_by_type_status_branch_date_and_limit(
    quantbot: Quantbot, cataloged: list[dict[str, Any]]
) -> None:
    newest_first = [r["run_id"] for r in reversed(cataloged)]
    assert query(quantbot) == newest_first
    assert query(quantbot, "--limit", 2) == newest_first[:2]
    assert query(quantbot, "--limit", 0) == []
    assert query(quantbot, "--run-type", "policy") == newest_first[:2]
    assert query(quantbot, "--run-type", "path-only", "--status", "completed") == newest_first[2:]
    assert query(quantbot, "--status", "failed") == []
    (branch,) = {row["git_branch"] for row in quantbot("backtest", "catalog-query", "--format", "json").json()}
    assert query(quantbot, "--git-branch", branch or "no branch") == (newest_first if branch else [])
    assert query(quantbot, "--git-branch", "' OR 1=1 --") == []
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert query(quantbot, "--from-date", "2024-01-01", "--to-date", today) == newest_first
    assert query(quantbot, "--to-date", "2024-01-01") == []
    rows = list(csv.DictReader(io.StringIO(quantbot("backtest", "catalog-query", "--format", "csv").out)))
    assert [row["run_id"] for row in rows] == newest_first


def test_an_artifact_is_found_by_run_and_duckdb_opens_it(quantbot: Quantbot, cataloged: list[dict[str, Any]]) -> None:
    run_id = cataloged[0]["run_id"]
    done = quantbot("backtest", "catalog-query", "--run-id", run_id, "--artifact-type", "paths")
    assert (done.status, done.err) == (0, "")
    (path,) = done.out.splitlines()
    assert Path(path).is_absolute()
    with duckdb.connect() as con:
        rows = con.execute("SELECT count(*), min(run_id) FROM read_parquet(?)", [path]).fetchall()
    assert rows == [(cataloged[0]["artifacts"]["paths"], run_id)]
    assert "trades" in quantbot("backtest", "catalog-query", "--run-id", run_id, "--artifact-type", "trades").complaint
    assert "nobody" in quantbot("backtest", "catalog-query", "--run-id", "nobody", "--artifact-type", "paths").complaint


def written(path: Path) -> tuple[int, int, int]:
    """Changes whenever a file is rewritten or replaced."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def test_a_second_sync_changes_nothing_and_a_rebuild_restores_the_same(
    quantbot: Quantbot, home: Path, cataloged: list[dict[str, Any]]
) -> None:
    catalog = home / "data" / "backtest_catalog.duckdb"
    # Not the whole stat: reading may change the time of the last access.
    before, content = written(catalog), quantbot("backtest", "catalog-query", "--format", "json").out
    (report,) = quantbot("backtest", "catalog-sync", "--format", "json").json()
    assert (report["registered"], report["runs"], report["published"]) == (0, len(cataloged), False)
    assert written(catalog) == before
    catalog.unlink()
    (report,) = quantbot("backtest", "catalog-sync", "--rebuild", "--format", "json").json()
    assert report["registered"] == len(cataloged)
    assert quantbot("backtest", "catalog-query", "--format", "json").out == content


def test_statistics_count_runs_and_rows(quantbot: Quantbot, cataloged: list[dict[str, Any]]) -> None:
    done = quantbot("backtest", "catalog-sync", "--stats", "--format", "json")
    stats = {(row["run_type"], row["status"]): row for row in done.json()}
    for run_type in ("path-only", "policy"):
        chosen = [r for r in cataloged if r["run_type"] == run_type]
        row = stats[(run_type, "completed")]
        assert (row["runs"], row["calls"]) == (len(chosen), sum(r["calls"] for r in chosen))
        assert row["artifact_rows"] == sum(sum(r["artifacts"].values()) for r in chosen)
    assert "6 runs cataloged" in done.err


def test_another_place_for_runs_and_catalog(
    quantbot: Quantbot, home: Path, tmp_path: Path, cataloged: list[dict[str, Any]]
) -> None:
    elsewhere = ("--base-dir", home / "runs", "--duckdb", tmp_path / "elsewhere.duckdb")
    assert quantbot("backtest", "catalog-sync", *elsewhere).status == 0
    assert len(query(quantbot, *elsewhere)) == len(cataloged)


def test_verify_tells_a_sound_run_from_a_broken_one(quantbot: Quantbot, cataloged: list[dict[str, Any]]) -> None:
    folder = Path(cataloged[0]["run_dir"])
    assert quantbot("backtest", "verify", folder).status == 0
    done = quantbot("backtest", "verify", folder.parents[1], "--format", "json")
    assert [row["ok"] for row in done.json()] == [True] * len(cataloged)
    artifact = folder / "truth" / "paths.parquet"
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    done = quantbot("backtest", "verify", folder.parents[1], "--format", "json")
    assert done.status == 1
    (broken,) = [row for row in json.loads(done.out) if not row["ok"]]
    assert broken["run_dir"] == str(folder)
    assert "paths.parquet" in broken["detail"]
    assert "1 of 6 run directories cannot be trusted" in done.err


def test_the_leaderboard_has_every_caller_and_ranks_none_without_evidence(
    quantbot: Quantbot, cataloged: list[dict[str, Any]]
) -> None:
    rows = quantbot("leaderboard", "--format", "json").json()
    assert {row["caller_name"] for row in rows} == set(CALLERS)
    # One call of May has no candles.
    assert sum(row["calls"] for row in rows) == len(MONTHS) * CALLS_PER_MONTH - 1
    assert [row["caller_name"] for row in rows] == sorted(CALLERS)
    table = quantbot("leaderboard")
    assert table.status == 0
    assert all(name in table.out for name in CALLERS)
    assert len(table.err.splitlines()) == 1 and "quantbot backtest evidence --from 2024-01 --to" in table.err
    none = quantbot("leaderboard", "--interval", "1h", "--format", "json")
    assert none.json() == [] and "no cataloged run holds such paths" in none.err


def test_a_report_says_which_months_were_run_in_part_or_unlike_the_others(quantbot: Quantbot, tmp_path: Path) -> None:
    home = tmp_path / "part"
    calls = [call("m", f"{day}T00:00", "A") for day in ("2024-01-01", "2024-01-03", "2024-02-01")]
    make_home(home, calls, candles("m", "2024-01-01", 300) + candles("m", "2024-02-01", 300))
    quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-02", "--home", home)
    quantbot("backtest", "path-only", "--from", "2024-01-01", "--to", "2024-01-02", "--home", home)
    quantbot("backtest", "path-only", "--from", "2024-02", "--to", "2024-02", "--latency-ms", 120_000, "--home", home)
    quantbot("backtest", "catalog-sync", "--home", home)
    part, unlike, unjudged, ended = quantbot("leaderboard", "--home", home).err.splitlines()
    assert part.startswith("2024-01: only calls from 2024-01-01T00:00:00.000Z to 2024-01-03T00:00:00.000Z, by run ")
    assert unlike == "the months behind these numbers were not run alike; they differ in latency_ms"
    assert "no caller has a verdict" in unjudged
    assert "calls of 'A' 100%" in ended


def test_commands_register_their_runs_and_reports_say_which_are_not(quantbot: Quantbot, home: Path) -> None:
    one = ("backtest", "path-only", *JANUARY, "--format", "json")
    (first,) = quantbot(*one).json()
    assert reported_months("catalog/runs") == {"2024-01"}
    assert "not in the catalog" not in quantbot("leaderboard").err
    (second,) = quantbot(*one, "--no-sync").json()
    for report in (("leaderboard",), ("query", "SELECT 1"), ("backtest", "catalog-query")):
        done = quantbot(*report)
        assert done.status == 0 and "1 committed run not in the catalog" in done.err, report
    assert query(quantbot) == [first["run_id"]]
    with locked(home / "data" / ".backtest_catalog.duckdb.lock", 0), pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTBOT_LOCK_TIMEOUT_S", "0.1")
        done = quantbot(*one)
    assert done.status == 0 and len(done.json()) == 1
    (said,) = done.err.splitlines()
    assert said.startswith("the runs are made, but not in the catalog: ") and said.endswith("catalog-sync`")
    (third,) = quantbot(*one).json()
    assert {first["run_id"], second["run_id"], third["run_id"]} < set(query(quantbot))


def test_hostile_names_are_shown_and_never_obeyed(quantbot: Quantbot, tmp_path: Path) -> None:
    home = tmp_path / "hostile"
    calls = [call("m", f"2024-01-01T{i:02}:00", name) for i, name in enumerate(HOSTILE)]
    make_home(home, calls, candles("m", "2024-01-01", 500))
    runs = quantbot("backtest", "path-only", *JANUARY, "--home", home, "--format", "json").json()
    assert runs[0]["calls"] == len(HOSTILE)
    quantbot("backtest", "catalog-sync", "--home", home)
    rows = quantbot("leaderboard", "--home", home, "--format", "json").json()
    assert {row["caller_name"] for row in rows} == set(HOSTILE)
    cells = list(csv.DictReader(io.StringIO(quantbot("leaderboard", "--home", home, "--format", "csv").out)))
    assert all(not row["caller_name"].startswith(("=", "+", "-", "@", "\t")) for row in cells)
    done = quantbot("leaderboard", "--home", home)
    assert "more than 20% of the calls" in done.err
    assert not set(done.out + done.err) & {"\x1b", "\x07", "\u202e", "\r"}
    assert {path.name for path in home.parent.iterdir()} == {"home", "hostile"}


# --- from nothing -----------------------------------------------------------------------------------------------------


def test_a_demo_makes_no_lab_among_other_files(quantbot: Quantbot, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").touch()
    done = quantbot("demo", "--home", folder)
    assert done.status == 2 and "photos: holds other files and is no home" in done.err
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


@pytest.mark.torture
def test_two_backfills_at_once_on_a_fresh_home_are_two_complete_sets_of_runs(home: Path, quantbot: Quantbot) -> None:
    terminal, theirs = os.openpty()
    months = MONTHS[-2:]  # with a gap between them: two stretches
    command = ("backfill", "--from", months[0], "--to", months[1], "--format", "json")
    first = start(home, *command)
    second = subprocess.Popen(
        [QUANTBOT, *command], env=environment(home), cwd=home, text=True, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # a terminal whose last writer has gone
        while text := os.read(terminal, 65_536):
            said += text
    os.close(terminal)
    done = finish(first)
    runs = [done.json(), json.loads(second.communicate(timeout=120)[0])]
    assert (second.returncode, "lock" in done.err + said.decode()) == (0, False)
    kinds = sorted(kind.run_type for kind in widest_kinds())
    count = len(months) * len(kinds)
    for made in runs:
        assert sorted((r["month"], r["run_type"]) for r in made) == [(m, kind) for m in months for kind in kinds]
        assert {(r["status"], r["unchanged"]) for r in made} == {("completed", False)}
    assert f"{count} runs made, 0 unchanged" in done.err
    assert "everything 2024-05" in said.decode()  # its progress, because it has a terminal
    assert dagster_runs() == 4  # two stretches of months each
    assert reported_months() == reported_months("results/walk_forward") == set(months)
    again = quantbot(*command, "--only-changed")
    assert {r["unchanged"] for r in again.json()} == {True}
    assert f"0 runs made, {count} unchanged" in again.err
    rows = quantbot("backtest", "catalog-query", "--limit", "100", "--format", "json").json()
    assert {row["run_id"] for row in rows} == {r["run_id"] for made in runs for r in made}
    assert {(row["run_type"], row["status"]) for row in rows} == {(kind, "completed") for kind in kinds}


def test_the_demo_shows_everything_and_its_second_run_computes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    home.mkdir()
    first = run(home, "demo")
    assert first.status == 0, first.err
    assert "generated" in first.out + first.err
    board = first.out.split("The policy that", 1)[0]
    said = {line.split()[0]: line for line in board.splitlines() if line.strip().startswith("sample:")}
    claimed = [name for name, line in said.items() if line.split()[1] == "evidence"]
    assert claimed == ["sample:rare_gem", "sample:alpha_hunter"], "the callers with a real edge, and no others"
    for name in said.keys() - set(claimed):
        assert "more calls" in said[name], "how much is missing"
    assert [name for name, line in said.items() if "inconclusive" in line and " evidence " in line] == [
        "sample:steady_trend",  # a modest edge
        "sample:fast_follower",
    ]
    made = run_dirs(home)
    assert made
    assert all(check_run(folder).status == "completed" for folder in made)
    second = run(home, "demo")
    assert second.status == 0
    assert second.out == first.out
    assert run_dirs(home) == made
