"""Small markets for tests: rows, files of every format, homes filled through the real ingest, runs without a backtest.

All times are UTC ms, all prices pure functions of the arguments: the same call builds the same rows everywhere.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.candle_files import HASH_KEY
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.manifest import DagsterRef, Dataset, RunManifest, SchemaVersion, Timing, folder_of
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS

Row = dict[str, Any]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
CALL_COLUMNS = ("call_id", "mint", "caller_name", "chain", "alert_ts_ms")
CANDLE_COLUMNS = ("mint", "ts_ms", "open", "high", "low", "close", "volume")
# Text that breaks careless code: SQL and CSV quotes, paths, markup, formulas, control and right-to-left characters.
HOSTILE = (
    "O'Brien; DROP TABLE alerts; --",
    'say "hi", ok?',
    "../../etc/passwd",
    "C:\\temp\\%s{0}",
    "<script>alert(1)</script>",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "-2",
    "\tleading tab",
    " blanks around ",
    "NULL",
    "null",
    "nan",
    "001",
    "1e5",
    "true",
    "🦊\u200d🚀 \u202egnp.exe",
    "e\u0301 is not é",
    "שלום مرحبا",
    "line\nbreak\r\nand\rreturn",
    "\x1b[31mred\x07",
    "x" * 10_000,
    "*?[a]",
)
HOSTILE_WITH_NUL = (*HOSTILE, "nul\x00inside", "\x00")


def ms(text: str) -> int:
    """UTC ms of an ISO-8601 time or day without an offset."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def base58(data: bytes) -> str:
    """The base58 text of some bytes, as Solana and Bitcoin write them."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return "1" * (len(data) - len(data.lstrip(bytes(1)))) + text


def solana_address(seed: int) -> str:
    """An address of Solana that looks like any other: the base58 of 32 bytes."""
    return base58(hashlib.sha256(str(seed).encode()).digest())


def candle(
    mint: str, ts_ms: int, open: float = 1.0, high: float = 1.1, low: float = 0.9, close: float = 1.0, volume: Any = 5.0
) -> Row:
    """One candle, valid unless told otherwise."""
    return dict(zip(CANDLE_COLUMNS, (mint, ts_ms, open, high, low, close, volume), strict=True))


def candles(
    mint: str, start: int | str, n: int, *, interval: str = "5m", price: float = 1.0, seed: int = 0
) -> list[Row]:
    """`n` valid candles without a gap from `start` (UTC ms or ISO): a random walk that `mint` and `seed` decide."""
    first = ms(start) if isinstance(start, str) else start
    rng = np.random.default_rng([seed, *mint.encode()])
    edges = price * np.exp(np.cumsum(rng.normal(0, 0.02, n + 1)))
    wicks = rng.uniform(1.0, 1.02, (2, n))
    rows = []
    for i in range(n):
        o, c = float(edges[i]), float(edges[i + 1])
        high, low = max(o, c) * float(wicks[0, i]), min(o, c) / float(wicks[1, i])
        rows.append(candle(mint, first + i * INTERVALS_MS[interval], o, high, low, c, float(i)))
    return rows


def call(mint: str, at: int | str, caller: str = "alice", *, call_id: str | None = None, chain: str = "solana") -> Row:
    """One call; without a `call_id` the ingest derives it."""
    alert = ms(at) if isinstance(at, str) else at
    return dict(zip(CALL_COLUMNS, (call_id, mint, caller, chain, alert), strict=True))


def write_csv(
    path: Path, rows: Sequence[Row], columns: Sequence[str] = (), *, encoding: str = "utf-8", eol: str = "\n"
) -> Path:
    """A CSV file; None becomes an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as f:
        writer = csv.writer(f, lineterminator=eol)
        names = list(columns or rows[0])
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Row]) -> Path:
    """One JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[Row] | pa.Table) -> Path:
    """A Parquet file with the types that pyarrow infers, or of a table as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)), path)
    return path


def write_feather(path: Path, rows: Sequence[Row]) -> Path:
    """A Feather (Arrow IPC) file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.feather.write_feather(pa.Table.from_pylist(list(rows)), path)
    return path


def stored_hash(path: Path) -> str:
    """The SHA-256 of the values of a candle file, as its footer carries it; empty without a file."""
    return str(pq.read_metadata(path).metadata[HASH_KEY].decode()) if path.exists() else ""


WRITERS = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet, ".feather": write_feather}


def make_home(
    home: Path,
    calls: Sequence[Row] = (),
    candles: Sequence[Row] = (),
    *,
    interval: str = "5m",
    **settings: Any,
) -> Home:
    """A home whose stores hold these rows, brought in by the real ingest; `settings` override the defaults."""
    defaults: dict[str, Any] = {"threads": 1, "memory_limit": "256MB", "lock_timeout_s": 5.0}
    made = Home(Settings(home=home, **defaults | settings))
    inbox = home / "inbox"
    if calls:
        ingest_calls([write_jsonl(inbox / "calls.jsonl", calls)], made.calls)
    if candles:
        ingest_candles([write_parquet(inbox / "candles.parquet", candles)], made.candles, interval)
    return made


def small_market() -> tuple[list[Row], list[Row]]:
    """(calls, candles): two callers, three tokens, alerts in January and February 2024; every call gets its window.

    Token `late` is called on January's last day, so that its window reaches into February.
    """
    rows = [
        *candles("early", "2024-01-10", 700),
        *candles("late", "2024-01-31", 900),
        *candles("feb", "2024-02-20", 700),
    ]
    return [
        call("early", "2024-01-10T00:03", "alice", call_id="a1"),
        call("early", "2024-01-10T02:00", "bob", call_id="b1"),
        call("late", "2024-01-31T23:00", "alice", call_id="a2"),
        call("feb", "2024-02-20T01:00", "bob", call_id="b2"),
    ], rows


# --- runs -------------------------------------------------------------------------------------------------------------


def artifact_rows(artifact_type: str, n: int, **values: Any) -> pa.Table:
    """`n` made-up rows that fit the artifact's schema, without its run_id; `values` replace whole columns' values."""
    made = {"int64": 0, "double": 0.5, "bool": True}
    columns = {}
    for field in ARTIFACTS[artifact_type][1]:
        if field.name != "run_id":
            cells = [made.get(str(field.type), f"{field.name}-{i}") for i in range(n)]
            columns[field.name] = pa.array(values.get(field.name, cells), field.type)
    return pa.table(columns)


def make_manifest(staged: StagedRun, logs: dict[str, str], **changes: Any) -> RunManifest:
    """The manifest of a staged run; `changes` replace its fields."""
    start = datetime.fromtimestamp(month_start_ms(staged.month) / 1000, UTC).isoformat()
    fields: dict[str, Any] = {
        "run_id": staged.run_id,
        "run_type": "path-only",
        "month": staged.month,
        "created_at": "2024-06-01T00:00:02.500Z",
        "started_at": "2024-06-01T00:00:01.000Z",
        "completed_at": "2024-06-01T00:00:02.500Z",
        "status": "completed",
        "git_commit": None,
        "git_branch": None,
        "git_dirty": None,
        "dataset": Dataset(from_=start, to=start, interval="5m", calls_count=3, calls_excluded=1, fingerprint="f"),
        "parameters": {"config_hash": "c0ffee", "latency_ms": 60_000},
        "schema_version": SchemaVersion(),
        "artifacts": staged.artifacts,
        "timing": Timing(total_ms=12.5),
        "logs": logs,
        "dagster": DagsterRef(),
        "versions": {"quantbot": "0"},
    }
    return RunManifest(**fields | changes)


def commit_run(
    runs_dir: Path,
    month: str = "2024-01",
    *,
    run_id: str | None = None,
    tables: dict[str, pa.Table] | None = None,
    **changes: Any,
) -> Path:
    """Commit a run of made-up artifacts (default: two alerts, two paths, no errors) through the real protocol."""
    with StagedRun(runs_dir, month, run_id) as staged:
        for name, table in (
            tables or {"alerts": artifact_rows("alerts", 2), "paths": artifact_rows("paths", 2)}
        ).items():
            staged.write(name, table)
        if "errors" not in staged.artifacts:
            staged.write("errors", artifact_rows("errors", 0))
        logs = staged.write_logs("what it said\n", "")
        return folder_of(staged.commit(make_manifest(staged, logs, **changes)))


def commit_evidence(home: Home, month: str, judged: pa.Table, **parameters: Any) -> Path:
    """Commit an evidence run with these verdicts and no curves."""
    curves = {name: artifact_rows(name, 0) for name in ("evidence_times", "evidence_costs")}
    tables = {"alerts": artifact_rows("alerts", 1), "evidence": judged, **curves}
    own = {"config_hash": "e", "strategy_id": "evidence"} | parameters
    return commit_run(home.runs.folder, month, tables=tables, run_type="optimization", parameters=own)
