"""The recipes: (settings, run type, month, config) → one committed run. Market, replay, search and artifacts meet only here.

Assets, the command line and tests all call `run_month`. It reads the month's calls and candles, replays them in one
pass, builds the artifacts that its run type asks for, and commits them; if anything fails, the failure is committed.
"""

import functools
import hashlib
import json
import logging
import platform
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline import __version__
from quantbot_pipeline.artifacts.commit import StagedRun, sweep_staging
from quantbot_pipeline.artifacts.manifest import (
    MANIFEST_NAME,
    DagsterRef,
    Dataset,
    RunManifest,
    SchemaVersion,
    Timing,
)
from quantbot_pipeline.artifacts.schemas import ARTIFACTS, ERRORS
from quantbot_pipeline.artifacts.verify import check_run
from quantbot_pipeline.config import CONTENTS, KEYS, BacktestConfig, RunType
from quantbot_pipeline.errors import IntegrityError, QuantbotError
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.market.candles import INTERVALS_MS
from quantbot_pipeline.market.slices import CandlePlan, Piece, known_mints, plan_slices, read_rejected
from quantbot_pipeline.months import iso_ms, iso_now, month_of, month_range, month_start_ms, next_month
from quantbot_pipeline.replay.policies import Policy, canonical_json
from quantbot_pipeline.settings import Settings

log = logging.getLogger(__name__)


class RunFailedError(QuantbotError):
    """A month whose run was committed as failed."""

    def __init__(self, month: str, message: str, run_dir: Path) -> None:
        super().__init__(f"{month}: {message}")
        self.month, self.run_dir = month, run_dir


class MonthResult(NamedTuple):
    """A committed run, and whether it was found unchanged instead of made."""

    run_dir: Path
    manifest: RunManifest
    reused: bool = False


@dataclass
class _Recorder:
    """What a run says about itself while it is made: phases, log lines and the rows of errors.parquet."""

    started_at: str = field(default_factory=iso_now)
    started: float = field(default_factory=time.perf_counter)
    timing: dict[str, float] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timing[f"{name}_ms"] = self.timing.get(f"{name}_ms", 0.0) + (time.perf_counter() - start) * 1e3

    def say(self, text: str) -> None:
        self.out.append(f"{iso_now()} {text}")
        log.debug(text)

    def report(
        self, level: str, phase: str, message: str, *, call_id: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        text = None if details is None else json.dumps(details, sort_keys=True, ensure_ascii=False)
        self.errors.append(
            {"timestamp": self.started_at, "level": level, "phase": phase, "call_id": call_id, "message": message, "details": text}
        )  # fmt: skip
        if level != "info":
            self.err.append(f"{iso_now()} {level} {phase} {call_id or '-'} {message}")

    def errors_table(self) -> pa.Table:
        return pa.Table.from_pylist(self.errors, schema=pa.schema([f for f in ERRORS if f.name != "run_id"]))

    def total(self) -> Timing:
        return Timing(**self.timing, total_ms=(time.perf_counter() - self.started) * 1e3)


class _Replayed(NamedTuple):
    """Everything the artifacts are built from."""

    calls: pa.Table
    rules: Any
    truth: Any
    outcomes: Any
    other_order: Any
    fingerprint: str


def run_month(
    settings: Settings,
    run_type: RunType,
    month: str,
    config: BacktestConfig,
    *,
    only_changed: bool = False,
    dagster: DagsterRef | None = None,
) -> MonthResult | None:
    """Make and commit the run of one month; None when the month has no calls.

    With `only_changed` a completed run with the same inputs, code and configuration is returned instead of a new one.
    Raises InputError for wrong inputs (nothing is committed), RunFailedError after a failure was committed.
    """
    recorder = _Recorder()
    config.parsed_policies()
    start, end = _bounds(month, config)
    with recorder.phase("plan"):
        calls, rejected_calls = read_calls(settings.alerts_db, start, end)
        if not calls.num_rows:
            return None
        plan = _plan_candles(settings, month, calls, config)
        fingerprint = _fingerprint(calls, plan)
    parameters = _parameters(run_type, config, start, end, month)
    if only_changed and (found := find_unchanged(settings, run_type, month, parameters["config_hash"], fingerprint)):
        log.info("%s: unchanged, %d calls", month, found.manifest.dataset.calls_count, extra={"month": month})
        return found
    sweep_staging(settings.runs_dir, settings.staging_max_age_s)
    with StagedRun(settings.runs_dir, month) as staged:
        recorder.say(f"run {staged.run_id}: {run_type} {month}, {calls.num_rows} calls")
        failure = None
        excluded = 0
        try:
            staged.write("alerts", calls)
            replayed = _replay(settings, month, calls, plan, config, run_type, fingerprint, recorder)
            excluded = _report_exclusions(settings, month, replayed, config, recorder, rejected_calls)
            _write_artifacts(staged, run_type, replayed, config, recorder)
        except Exception as e:
            failure = f"{type(e).__name__}: {e}"
            recorder.report("error", "execution", failure)
        staged.write("errors", recorder.errors_table())
        recorder.say("failed" if failure else "completed")
        logs = staged.write_logs("\n".join(recorder.out) + "\n", "".join(line + "\n" for line in recorder.err))
        commit, branch, dirty = git_provenance()
        manifest = RunManifest(
            run_id=staged.run_id,
            run_type=run_type,
            month=month,
            created_at=iso_now(),
            started_at=recorder.started_at,
            completed_at=iso_now(),
            status="failed" if failure else "completed",
            git_commit=commit,
            git_branch=branch,
            git_dirty=dirty,
            dataset=Dataset(
                from_=iso_ms(start), to=iso_ms(end - 1), interval=config.interval, calls_count=calls.num_rows,
                calls_excluded=excluded, fingerprint=fingerprint,
            ),
            parameters=parameters,
            schema_version=SchemaVersion(),
            artifacts=staged.artifacts,
            timing=recorder.total(),
            logs=logs,
            dagster=dagster or DagsterRef(),
            versions=versions(),
            error=failure,
        )  # fmt: skip
        run_dir = staged.commit(manifest)
    if failure:
        raise RunFailedError(month, failure, run_dir)
    log.info("%s: %d calls, %d excluded", month, calls.num_rows, excluded, extra={"month": month})
    return MonthResult(run_dir, manifest)


def find_unchanged(
    settings: Settings, run_type: RunType, month: str, config_hash: str, fingerprint: str
) -> MonthResult | None:
    """The newest completed run of the month with this configuration, these inputs and the present code, verified by size."""
    code = versions()["code"]
    for run_dir, manifest in sorted(completed_runs(settings, month), key=lambda pair: pair[1].created_at, reverse=True):
        if (manifest.run_type, manifest.parameters.get("config_hash"), manifest.dataset.fingerprint) == (
            run_type, config_hash, fingerprint,
        ) and manifest.versions.get("code") == code:  # fmt: skip
            return MonthResult(run_dir, manifest, reused=True)
    return None


def completed_runs(settings: Settings, month: str) -> Iterator[tuple[Path, RunManifest]]:
    """All runs of a month that keep their promises (names, sizes, `_SUCCESS`), in no particular order."""
    for path in (settings.runs_dir / month).glob(f"run_id=*/{MANIFEST_NAME}"):
        try:
            manifest = check_run(path.parent, checksums=False)
        except IntegrityError:
            continue  # the catalog quarantines it; here it only must not be believed
        if manifest.status == "completed":
            yield path.parent, manifest


# --- plan -------------------------------------------------------------------------------------------------------------


def _bounds(month: str, config: BacktestConfig) -> tuple[int, int]:
    start, end = month_start_ms(month), month_start_ms(next_month(month))
    return max(start, config.from_ms or start), min(end, config.to_ms or end)


def _reach_ms(config: BacktestConfig) -> int:
    """How long after its alert a call can need candles."""
    return config.max_entry_delay_ms + INTERVALS_MS[config.interval] + config.horizon_ms


def _plan_candles(settings: Settings, month: str, calls: pa.Table, config: BacktestConfig) -> CandlePlan:
    last_alert = calls.group_by("mint").aggregate([("alert_ts_ms", "max")])
    reach = _reach_ms(config)
    until = {
        mint: alert + reach
        for mint, alert in zip(last_alert["mint"].to_pylist(), last_alert["alert_ts_ms_max"].to_pylist(), strict=True)
    }
    months = list(month_range(month, month_of(max(until.values()))))
    return plan_slices(settings.candles_dir, config.interval, months, until, month_start_ms(next_month(month)))


def _fingerprint(calls: pa.Table, plan: CandlePlan) -> str:
    from quantbot_pipeline.artifacts.commit import content_sha256

    return hashlib.sha256("\n".join([content_sha256(calls), *plan.fingerprint]).encode()).hexdigest()


def _parameters(run_type: RunType, config: BacktestConfig, start: int, end: int, month: str) -> dict[str, Any]:
    """The configuration that this run type depends on, and its hash; part of a month is another configuration."""
    values = config.model_dump()
    chosen = {key: values[key] for key in KEYS[run_type]}
    if "policies" in chosen:
        chosen["policies"] = [json.loads(canonical_json(p)) for p in config.parsed_policies().values()]
    if (start, end) != (month_start_ms(month), month_start_ms(next_month(month))):
        chosen |= {"from_ms": start, "to_ms": end}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    ids = list(config.parsed_policies()) if "policies" in chosen else []
    identity = {"policy_id": ids[0]} if len(ids) == 1 else {}
    return {"config_hash": hashlib.sha256(text.encode()).hexdigest()[:16], **chosen, **identity}


# --- replay -----------------------------------------------------------------------------------------------------------


def _replay(
    settings: Settings, month: str, calls: pa.Table, plan: CandlePlan, config: BacktestConfig, run_type: RunType,
    fingerprint: str, recorder: _Recorder,
) -> _Replayed:  # fmt: skip
    from quantbot_pipeline.replay import engine
    from quantbot_pipeline.replay.policies import compile_policies

    needs_policies = "trades" in CONTENTS[run_type]
    policies = list(config.parsed_policies().values()) if needs_policies else []
    compiled = compile_policies(policies, config.activity_move_pct)
    rules = engine.Rules(
        INTERVALS_MS[config.interval], config.latency_ms, config.entry == "close", config.horizon_ms, config.max_entry_delay_ms,
        config.min_coverage, config.intrabar == "optimistic", config.stop_slippage_bps,
    )  # fmt: skip
    truth = engine.empty_truth(calls.num_rows)
    outcomes = engine.empty_outcomes(calls.num_rows, len(policies))
    other = engine.empty_outcomes(calls.num_rows, len(policies)) if needs_policies and config.both_orders else None
    by_mint = _rows_by_mint(calls)
    alert = calls["alert_ts_ms"].to_numpy()
    spent = {"slice": 0.0, "execution": 0.0}

    def work(load: Any) -> tuple[float, float]:
        decoding = replaying = 0.0
        mark = time.perf_counter()
        for piece in load():
            decoded = time.perf_counter()
            lo, hi, rows = _match(piece, by_mint)
            if len(rows):
                candles = engine.Candles(*piece[2:])
                engine.replay(candles, alert[rows], lo, hi, rows, rules, compiled, truth, outcomes)
                if other is not None:
                    optimistic = rules._replace(optimistic=True)
                    engine.replay(candles, alert[rows], lo, hi, rows, optimistic, compiled, truth, other)
            decoding += decoded - mark
            mark = time.perf_counter()
            replaying += mark - decoded
        return decoding, replaying

    begun = time.perf_counter()
    with ThreadPoolExecutor(settings.threads) as pool:
        for decoding, replaying in pool.map(work, plan.loads):
            spent["slice"] += decoding
            spent["execution"] += replaying
    wall, busy = time.perf_counter() - begun, sum(spent.values()) or 1.0
    for name, seconds in spent.items():  # threads overlap: the wall time, split as the work was
        recorder.timing[f"{name}_ms"] = wall * 1e3 * seconds / busy
    absent = np.flatnonzero(truth.status == engine.NO_CANDLES)
    if len(absent):
        mints = calls["mint"].take(pa.array(absent)).to_pylist()
        known = known_mints(settings.candles_dir, config.interval, list(set(mints)))
        truth.status[[row for row, mint in zip(absent, mints, strict=True) if mint in known]] = engine.NO_ENTRY
    recorder.say(f"replayed {len(plan.loads)} row groups in {wall:.3f} s")
    return _Replayed(calls, rules, truth, outcomes, other, fingerprint)


def _rows_by_mint(calls: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
    rows: dict[str, list[int]] = {}
    for row, mint in enumerate(calls["mint"].to_pylist()):
        rows.setdefault(mint, []).append(row)
    return {mint: np.array(found, dtype=np.int64) for mint, found in rows.items()}


def _match(
    piece: Piece, by_mint: dict[str, npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lo, hi, rows) of the calls whose tokens are in the piece."""
    tokens = [(i, by_mint[mint]) for i, mint in enumerate(piece.mints) if mint in by_mint]
    if not tokens:
        return (np.empty(0, np.int64),) * 3
    counts = [len(rows) for _, rows in tokens]
    index = np.repeat([i for i, _ in tokens], counts)
    return piece.offsets[index], piece.offsets[index + 1], np.concatenate([rows for _, rows in tokens])


# --- artifacts --------------------------------------------------------------------------------------------------------


def _report_exclusions(
    settings: Settings,
    month: str,
    replayed: _Replayed,
    config: BacktestConfig,
    recorder: _Recorder,
    rejected_calls: dict[str, int],
) -> int:
    """Write one row per excluded call, and one per token and reason of rejected candles; returns the excluded calls."""
    from quantbot_pipeline.replay.truth import excluded

    texts = {
        "no_candles": "no valid {interval} candle of this mint is in the store",
        "no_entry": "no valid {interval} candle within {delay} min after the alert",
        "no_window": "the window after the entry has no candle",
        "low_coverage": "the window has too few candles (min_coverage {coverage})",
    }
    values = {
        "interval": config.interval,
        "delay": config.max_entry_delay_ms // 60_000,
        "coverage": config.min_coverage,
    }
    with recorder.phase("coverage"):
        left_out = excluded(replayed.truth)
        ids, mints = replayed.calls["call_id"].to_pylist(), replayed.calls["mint"].to_pylist()
        for row, reason in left_out:
            recorder.report(
                "warning", "coverage", f"{reason}: {texts[reason].format(**values)}", call_id=ids[row],
                details={"reason": reason, "mint": mints[row]},
            )  # fmt: skip
        for details in _rejected_candles(settings, month, replayed, config):
            recorder.report(
                "warning", "coverage", f"{details['rows']} candles rejected: {details['reason']}", details=details
            )
        for reason, rows in rejected_calls.items():
            recorder.report(
                "warning",
                "plan",
                f"{rows} calls rejected at ingest: {reason}",
                details={"reason": reason, "rows": rows},
            )
    return len(left_out)


def _rejected_candles(
    settings: Settings, month: str, replayed: _Replayed, config: BacktestConfig
) -> list[dict[str, Any]]:
    """Rejected candles that a window of this run would have used, counted once each, by token and reason."""
    calls, truth = replayed.calls, replayed.truth
    by_mint = _rows_by_mint(calls)
    alert = calls["alert_ts_ms"].to_numpy()
    months = list(month_range(month, month_of(int(alert.max()) + _reach_ms(config))))
    rejected = read_rejected(settings.candles_dir, config.interval, months, list(by_mint))
    # From the earliest possible entry to the window's end, or to the latest possible entry where there is no window.
    entered = truth.entry_ts >= 0
    last = np.where(
        entered, truth.entry_ts + config.horizon_ms - INTERVALS_MS[config.interval], alert + config.max_entry_delay_ms
    )
    counts: dict[tuple[str, str], list[int]] = {}
    for mint, ts, reason in zip(*(rejected[name].to_pylist() for name in ("mint", "ts_ms", "reason")), strict=True):
        rows = by_mint[mint]
        if ts is not None and np.any((alert[rows] + config.latency_ms <= ts) & (ts <= last[rows])):
            counts.setdefault((mint, reason), []).append(ts)
    return [
        {"mint": mint, "reason": reason, "rows": len(times), "first_ts_ms": min(times), "last_ts_ms": max(times)}
        for (mint, reason), times in sorted(counts.items())
    ]


def _write_artifacts(
    staged: StagedRun, run_type: RunType, replayed: _Replayed, config: BacktestConfig, recorder: _Recorder
) -> None:
    from quantbot_pipeline.replay.trades import cost_per_side, trades_table
    from quantbot_pipeline.replay.truth import paths_table

    contents = CONTENTS[run_type]
    c = cost_per_side(config.taker_fee_bps, config.slippage_bps)
    with recorder.phase("execution"):
        if "paths" in contents:
            staged.write("paths", paths_table(replayed.calls, replayed.truth, replayed.rules, config.interval))
        if "trades" in contents:
            ids = list(config.parsed_policies())
            staged.write(
                "trades", trades_table(replayed.calls, replayed.truth, replayed.outcomes, ids, c, replayed.other_order)
            )
        if "summary" in contents:
            staged.write("summary", _summary(replayed, config.parsed_policies(), c))


def _summary(replayed: _Replayed, policies: dict[str, Policy], c: float) -> pa.Table:
    from quantbot_pipeline.replay.trades import STATS, aggregate
    from quantbot_pipeline.replay.truth import included_rows

    rows = included_rows(replayed.truth)
    stats = aggregate(replayed.truth, replayed.outcomes, rows, np.array([len(rows)], dtype=np.int64), c)[0]
    n = len(policies)
    columns: dict[str, Any] = {
        "policy_id": pa.array(list(policies), pa.string()),
        "calls_processed": np.full(n, replayed.calls.num_rows),
        "calls_excluded": np.full(n, replayed.calls.num_rows - len(rows)),
        "trades_count": np.full(n, len(rows)),
        "censored_count": np.full(n, int(replayed.truth.censored[rows].sum())),
        "policy_params": pa.array([canonical_json(p) for p in policies.values()], pa.string()),
    }
    for i, name in enumerate(STATS):
        columns[name] = pa.array(stats[:, i], mask=np.isnan(stats[:, i]))
    schema = ARTIFACTS["summary"][1]
    return pa.table({name: columns[name] for name in schema.names if name != "run_id"})


# --- provenance -------------------------------------------------------------------------------------------------------


@functools.cache
def git_provenance() -> tuple[str | None, str | None, bool | None]:
    """(commit, branch, dirty) of the checkout this code runs from; Nones outside one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments],  # noqa: S607
                capture_output=True, text=True, timeout=10, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "backtest.py") is None:
        return None, None, None
    status = git("status", "--porcelain")
    return git("rev-parse", "HEAD"), git("symbolic-ref", "--short", "HEAD"), None if status is None else bool(status)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computes and writes; `code` is a hash of this package's sources."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "python": platform.python_version(),
        "quantbot": __version__,
        "code": digest.hexdigest()[:16],
        **{name: version(name) for name in ("dagster", "duckdb", "pyarrow", "numpy")},
    }
