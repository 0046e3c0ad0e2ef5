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
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline import __version__
from quantbot_pipeline.artifacts.schemas import ARTIFACTS, ERRORS
from quantbot_pipeline.config import CONTENTS, KEYS, RUN_TYPES, BacktestConfig, Recipe
from quantbot_pipeline.durable import disk_errors
from quantbot_pipeline.errors import InputError, IntegrityError, QuantbotError
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.market.candle_files import read_rejected
from quantbot_pipeline.market.candle_reader import CandlePlan, Load, Piece, known_mints, plan_slices
from quantbot_pipeline.market.features import call_features
from quantbot_pipeline.months import iso_ms, iso_now, month_of, month_range, month_start_ms, months_before, next_month
from quantbot_pipeline.replay.policies import Policy, canonical_json, parse_policy
from quantbot_pipeline.runs.commit import ArtifactWriter, StagedRun
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, DagsterRef, Dataset, RunManifest, SchemaVersion, Timing
from quantbot_pipeline.runs.store import sweep_staging
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates, Group
    from quantbot_pipeline.search.objective import Constraints, Objective
    from quantbot_pipeline.search.walk_forward import Evaluated

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
    excluded: Callable[[], Iterator[list[dict[str, Any]]]] = lambda: iter(())  # rows before `errors`, made when written
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def say(self, text: str) -> None:
        self.out.append(f"{iso_now()} {text}")
        log.debug(text)

    def add(self, name: str, seconds: float) -> None:
        """Add to a phase what was measured elsewhere."""
        self.timing[f"{name}_ms"] = self.timing.get(f"{name}_ms", 0.0) + seconds * 1e3

    def report(
        self, level: str, phase: str, message: str, *, call_id: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        self.errors.append(self.error(level, phase, message, call_id=call_id, details=details))

    def error(
        self, level: str, phase: str, message: str, *, call_id: str | None = None, details: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A row of errors.parquet."""
        text = None if details is None else json.dumps(details, sort_keys=True, ensure_ascii=False)
        return {
            "timestamp": self.started_at, "level": level, "phase": phase, "call_id": call_id, "message": message, "details": text
        }  # fmt: skip

    def write_errors(self, staged: StagedRun) -> None:
        """Write errors.parquet and note its rows for the log; a month can leave out most of its calls, so piece by piece."""
        schema = pa.schema([f for f in ERRORS if f.name != "run_id"])
        with staged.writing("errors") as errors:
            for rows in chain(self.excluded(), [self.errors]):
                errors.add(pa.Table.from_pylist(rows, schema=schema))
                told = [row for row in rows if row["level"] != "info"]
                lines = (f"{iso_now()} {r['level']} {r['phase']} {r['call_id'] or '-'} {r['message']}\n" for r in told)
                self.err.append("".join(lines))

    def total(self) -> Timing:
        return Timing(**self.timing, total_ms=(time.perf_counter() - self.started) * 1e3)


class _Month(NamedTuple):
    """A month's inputs: its calls, how many were rejected at ingest, what must be decoded, and the hash of it all."""

    month: str
    calls: pa.Table
    by_mint: "_CallsByMint"
    rejected: dict[str, int]
    plan: CandlePlan
    fingerprint: str
    broken: str | None


class _Replayed(NamedTuple):
    """A month replayed; `outcomes` has one column per policy, so has `other_order` if both orders were asked for."""

    month: _Month
    rules: "results.Rules"
    truth: "results.Truth"
    outcomes: "results.Outcomes"
    other_order: "results.Outcomes | None"


# Replays of earlier months that a walk-forward over several months need not repeat, by (month, fingerprint, config hash).
ReplayCache = dict[tuple[str, str, str], _Replayed]


@dataclass
class _Run:
    """What a recipe works with and writes to."""

    settings: Settings
    config: BacktestConfig
    inputs: _Month
    earlier: list[_Month]
    features: Callable[[], Iterator[pa.Table]] | None
    staged: StagedRun
    recorder: _Recorder
    cache: ReplayCache
    excluded: int | None = None  # known once the month was replayed

    @property
    def cost(self) -> float:
        """Fees and slippage of one side, as a fraction."""
        from quantbot_pipeline.replay.statistics import cost_per_side

        return cost_per_side(self.config.taker_fee_bps, self.config.slippage_bps)

    def replay(self, policies: Sequence[Policy], *, both_orders: bool = False) -> _Replayed:
        """Replay the month and report the calls that are left out (once)."""
        replayed = _replay(self.settings, self.inputs, self.config, policies, self.recorder, both_orders=both_orders)
        if self.excluded is None:
            self.excluded = _report_exclusions(self.settings, replayed, self.config, self.recorder)
        return replayed


def run_month(
    settings: Settings,
    recipe: Recipe,
    month: str,
    config: BacktestConfig,
    *,
    only_changed: bool = False,
    dagster: DagsterRef | None = None,
    cache: ReplayCache | None = None,
) -> MonthResult | None:
    """Make and commit the run of one month; None when the month has no calls.

    With `only_changed` a completed run with the same inputs, code and configuration is returned instead of a new one.
    Raises InputError for wrong inputs (nothing is committed), RunFailedError after a failure was committed, StoreError when
    not even that could be written.
    """
    config.parsed_policies()
    with ExitStack() as stores:  # the features stay in a DuckDB until they are written
        return _run_month(settings, recipe, month, config, only_changed, dagster, cache, stores)


def _run_month(
    settings: Settings,
    recipe: Recipe,
    month: str,
    config: BacktestConfig,
    only_changed: bool,
    dagster: DagsterRef | None,
    cache: ReplayCache | None,
    stores: ExitStack,
) -> MonthResult | None:
    recorder = _Recorder()
    with recorder.phase("plan"):
        bounds = _bounds(month, config)
        inputs = _load(settings, month, config, bounds)
        if inputs is None:
            return None
        earlier = _earlier_months(settings, month, config) if recipe == "walk-forward" else []
        features = None
        if "features" in CONTENTS[recipe]:
            opened = call_features(settings.alerts_db, *bounds, memory_limit=_duckdb_limit(settings))
            features = stores.enter_context(opened)
        fingerprint = _hash(
            inputs.fingerprint, *(m.fingerprint for m in earlier), *([content_sha256(features())] if features else [])
        )
    parameters = _parameters(recipe, config, bounds, month)
    calls = inputs.calls.num_rows
    if only_changed and (found := find_unchanged(settings, recipe, month, parameters["config_hash"], fingerprint)):
        log.info("%s: unchanged, %d calls", month, calls, extra={"month": month})
        return found
    sweep_staging(settings.runs_dir, settings.staging_max_age_s)
    with disk_errors(settings.runs_dir), StagedRun(settings.runs_dir, month) as staged:
        recorder.say(f"run {staged.run_id}: {recipe} {month}, {calls} calls")
        run = _Run(settings, config, inputs, earlier, features, staged, recorder, {} if cache is None else cache)
        failure = None
        try:
            with disk_errors(settings.runs_dir), np.errstate(over="ignore"):  # an artifact refuses what overflowed
                staged.write("alerts", inputs.calls)
                if broken := next((m.broken for m in (inputs, *earlier) if m.broken), None):
                    raise InputError(broken)
                RECIPES[recipe](run)
        except Exception as e:
            failure = str(e) if isinstance(e, QuantbotError) else f"{type(e).__name__}: {e}"
            recorder.report("error", "execution", failure)
        recorder.write_errors(staged)
        recorder.say("failed" if failure else "completed")
        logs = staged.write_logs("\n".join(recorder.out) + "\n", "".join(recorder.err))
        commit, branch, dirty = git_provenance()
        start, end = bounds
        manifest = RunManifest(
            run_id=staged.run_id,
            run_type=RUN_TYPES[recipe],
            month=month,
            created_at=iso_now(),
            started_at=recorder.started_at,
            completed_at=iso_now(),
            status="failed" if failure else "completed",
            git_commit=commit,
            git_branch=branch,
            git_dirty=dirty,
            dataset=Dataset(
                from_=iso_ms(start),
                to=iso_ms(end - 1),
                interval=config.interval,
                calls_count=calls,
                calls_excluded=run.excluded or 0,
                fingerprint=fingerprint,
            ),
            parameters=parameters,
            schema_version=SchemaVersion(),
            artifacts=staged.artifacts,
            timing=recorder.total(),
            logs=logs,
            dagster=dagster or DagsterRef(),
            versions=versions(),
            error=failure,
        )
        run_dir = staged.commit(manifest)
    if failure:
        raise RunFailedError(month, failure, run_dir)
    log.info("%s: %d calls, %d excluded", month, calls, run.excluded or 0, extra={"month": month})
    return MonthResult(run_dir, manifest)


def find_unchanged(
    settings: Settings, recipe: Recipe, month: str, config_hash: str, fingerprint: str
) -> MonthResult | None:
    """The newest completed run of the month with this configuration, these inputs and the present code, every byte verified."""
    code = versions()["code"]
    for run_dir, manifest in sorted(completed_runs(settings, month), key=lambda pair: pair[1].created_at, reverse=True):
        wanted = (RUN_TYPES[recipe], config_hash, fingerprint, code)
        made = (
            manifest.run_type,
            manifest.parameters.get("config_hash"),
            manifest.dataset.fingerprint,
            manifest.versions.get("code"),
        )
        if made == wanted and _is_sound(run_dir):
            return MonthResult(run_dir, manifest, reused=True)
    return None


def _is_sound(run_dir: Path) -> bool:
    try:
        check_run(run_dir)
    except IntegrityError as e:
        log.warning("%s; made again", e)
        return False
    return True


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


def _load(settings: Settings, month: str, config: BacktestConfig, bounds: tuple[int, int]) -> _Month | None:
    """The inputs of a month; None when it has no calls."""
    calls, rejected = read_calls(settings.alerts_db, *bounds, memory_limit=_duckdb_limit(settings))
    return _planned(settings, month, config, calls, rejected) if calls.num_rows else None


DUCKDB_LEAST = 128_000_000  # bytes; with less it could not sort the calls of a large month


def _duckdb_limit(settings: Settings) -> str:
    return f"{max(settings.memory_bytes, DUCKDB_LEAST)}B"


def _planned(
    settings: Settings, month: str, config: BacktestConfig, calls: pa.Table, rejected: dict[str, int]
) -> _Month:
    by_mint = _calls_by_mint(calls)
    try:
        plan, broken = _plan_candles(settings, month, calls, by_mint, config), None
    except InputError as e:  # this month's run will be committed as failed; the other months go on
        plan, broken = CandlePlan([], []), str(e)
    return _Month(month, calls, by_mint, rejected, plan, _hash(content_sha256(calls), *plan.fingerprint), broken)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _earlier_months(settings: Settings, month: str, config: BacktestConfig) -> list[_Month]:
    """The inputs of all months before `month` that have calls, ascending; the calls are read at once."""
    calls, _ = read_calls(settings.alerts_db, 0, month_start_ms(month), memory_limit=_duckdb_limit(settings))
    alert = calls["alert_ts_ms"].to_numpy()
    earlier, start = [], 0
    while start < len(alert):
        name = month_of(int(alert[start]))
        end = int(np.searchsorted(alert, month_start_ms(next_month(name))))
        earlier.append(_planned(settings, name, config, calls.slice(start, end - start), {}))
        start = end
    return earlier


def _plan_candles(
    settings: Settings, month: str, calls: pa.Table, by_mint: "_CallsByMint", config: BacktestConfig
) -> CandlePlan:
    alert = calls["alert_ts_ms"].to_numpy()
    last = np.maximum.reduceat(alert[by_mint.rows], by_mint.ends - by_mint.counts)
    until = dict(zip(by_mint.code, (last + _reach_ms(config)).tolist(), strict=True))
    months = list(month_range(month, month_of(max(until.values()))))
    return plan_slices(settings.candles_dir, config.interval, months, until, month_start_ms(next_month(month)))


def _parameters(recipe: Recipe, config: BacktestConfig, bounds: tuple[int, int], month: str) -> dict[str, Any]:
    """The configuration that this recipe depends on, and its hash; part of a month is another configuration."""
    values = config.model_dump()
    chosen = {key: values[key] for key in KEYS[recipe]}
    if "policies" in chosen:
        chosen["policies"] = [json.loads(canonical_json(p)) for p in config.parsed_policies().values()]
    if RUN_TYPES[recipe] == "optimization":
        chosen["strategy_id"] = "grid-search" if recipe == "optimization" else recipe
    if bounds != (month_start_ms(month), month_start_ms(next_month(month))):
        chosen |= {"from_ms": bounds[0], "to_ms": bounds[1]}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    ids = list(config.parsed_policies()) if "policies" in chosen else []
    identity = {"policy_id": ids[0]} if len(ids) == 1 else {}
    return {"config_hash": hashlib.sha256(text.encode()).hexdigest()[:16], **chosen, **identity}


# --- replay -----------------------------------------------------------------------------------------------------------


def _replay(
    settings: Settings,
    inputs: _Month,
    config: BacktestConfig,
    policies: Sequence[Policy],
    recorder: _Recorder,
    *,
    both_orders: bool = False,
) -> _Replayed:
    """Decode the month's candles and replay all calls and policies in one pass, a thread per row group."""
    from quantbot_pipeline.replay import kernel, results
    from quantbot_pipeline.replay.compile import compile_policies

    _ready_engine()
    calls, plan = inputs.calls, inputs.plan
    compiled = compile_policies(policies, config.activity_move_pct)
    rules = results.Rules(
        interval_ms=INTERVALS_MS[config.interval],
        latency_ms=config.latency_ms,
        entry_close=config.entry == "close",
        horizon_ms=config.horizon_ms,
        max_entry_delay_ms=config.max_entry_delay_ms,
        min_coverage=config.min_coverage,
        optimistic=config.intrabar == "optimistic",
        stop_slippage_bps=config.stop_slippage_bps,
    )
    truth = results.empty_truth(calls.num_rows)
    orders = [(rules, results.empty_outcomes(calls.num_rows, len(policies)))]
    if both_orders:
        orders.append(
            (rules._replace(optimistic=not rules.optimistic), results.empty_outcomes(calls.num_rows, len(policies)))
        )
    alert = calls["alert_ts_ms"].to_numpy()

    def work(load: Load) -> tuple[float, float, list[tuple[npt.NDArray[np.int64], list[results.Exits]]]]:
        decoding = replaying = 0.0
        parts = []
        mark = time.perf_counter()
        for piece in load():
            decoded = time.perf_counter()
            lo, hi, rows = _match(piece, inputs.by_mint)
            if len(rows):
                candles = results.Candles(*piece.arrays())
                made = [kernel.replay(candles, alert[rows], lo, hi, rows, r, compiled, truth, o) for r, o in orders]
                parts.append((rows, made))
            decoding += decoded - mark
            mark = time.perf_counter()
            replaying += mark - decoded
        return decoding, replaying, parts

    begun = time.perf_counter()
    with ThreadPoolExecutor(settings.threads) as pool:
        spent = list(pool.map(work, plan.loads))
    wall = time.perf_counter() - begun
    outcomes = [
        results.with_exits(empty, [(rows, made[i]) for *_, parts in spent for rows, made in parts])
        for i, (_, empty) in enumerate(orders)
    ]
    totals = {"slice": sum(d for d, *_ in spent), "execution": sum(r for _, r, _ in spent)}
    for name, seconds in totals.items():  # threads overlap: the wall time, split as the work was
        recorder.add(name, wall * seconds / (sum(totals.values()) or 1.0))
    _tell_no_entry_from_no_candles(settings, calls, truth, config.interval)
    recorder.say(f"{inputs.month}: {len(policies)} policies over {len(plan.loads)} row groups in {wall:.3f} s")
    return _Replayed(inputs, rules, truth, outcomes[0], outcomes[1] if both_orders else None)


@functools.cache
def _ready_engine() -> None:
    """Have the engine compiled before threads need it, and say so when that takes a while (the first time ever)."""
    from quantbot_pipeline.replay.kernel import warm_up

    notice = threading.Timer(
        2.0, log.warning, ["compiling the replay engine once, about ten seconds; later starts load it"]
    )
    notice.daemon = True
    notice.start()
    try:
        warm_up()
    finally:
        notice.cancel()


def _tell_no_entry_from_no_candles(settings: Settings, calls: pa.Table, truth: "results.Truth", interval: str) -> None:
    """A mint without candles in the months read may have some elsewhere: then the call has no entry, not no candles."""
    from quantbot_pipeline.vocabulary import NO_CANDLES, NO_ENTRY

    absent = np.flatnonzero(truth.status == NO_CANDLES)
    if len(absent):
        mints = calls["mint"].take(pa.array(absent)).to_pylist()
        known = known_mints(settings.candles_dir, interval, list(set(mints)))
        truth.status[[row for row, mint in zip(absent, mints, strict=True) if mint in known]] = NO_ENTRY


class _CallsByMint(NamedTuple):
    """Rows of the calls, token after token: `rows[ends[i] - counts[i] : ends[i]]` are those of the mint with `code[mint] == i`."""

    code: dict[str, int]
    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def _calls_by_mint(calls: pa.Table) -> _CallsByMint:
    mints = calls["mint"].combine_chunks().dictionary_encode()
    codes = mints.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(mints.dictionary))
    code = {mint: i for i, mint in enumerate(mints.dictionary.to_pylist())}
    return _CallsByMint(code, np.argsort(codes, kind="stable"), np.cumsum(counts), counts)


def _match(
    piece: Piece, calls: _CallsByMint
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lo, hi, rows) of the calls whose tokens are in the piece."""
    counts = calls.counts[piece.tokens]
    token = np.repeat(np.arange(len(counts)), counts)
    # Position in `rows`: the first of its token, and how far into the token's calls.
    within = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = calls.rows[np.repeat(calls.ends[piece.tokens] - counts, counts) + within]
    return piece.lo[token], piece.hi[token], rows


# --- artifacts --------------------------------------------------------------------------------------------------------


def _report_exclusions(settings: Settings, replayed: _Replayed, config: BacktestConfig, recorder: _Recorder) -> int:
    """Report each excluded call, and rejected candles by token and reason; returns how many calls are excluded."""
    from quantbot_pipeline.replay.truth import excluded, included_rows

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
        calls, status = replayed.month.calls, replayed.truth.status
        texts = {reason: f"{reason}: {text.format(**values)}" for reason, text in texts.items()}

        def in_pieces() -> Iterator[list[dict[str, Any]]]:
            for piece in _pieces(calls.num_rows, max(1, PIECE // 8)):  # a Python object each
                left_out = excluded(status[piece])
                named = calls[piece].take(pa.array([row for row, _ in left_out], pa.int64()))
                ids, mints = named["call_id"].to_pylist(), named["mint"].to_pylist()
                yield [
                    recorder.error(
                        "warning", "coverage", texts[reason], call_id=call_id, details={"reason": reason, "mint": mint}
                    )
                    for (_, reason), call_id, mint in zip(left_out, ids, mints, strict=True)
                ]

        recorder.excluded = in_pieces
        for details in _rejected_candles(settings, replayed, config):
            recorder.report(
                "warning", "coverage", f"{details['rows']} candles rejected: {details['reason']}", details=details
            )
        for reason, rows in replayed.month.rejected.items():
            recorder.report(
                "warning",
                "plan",
                f"{rows} calls rejected at ingest: {reason}",
                details={"reason": reason, "rows": rows},
            )
    return calls.num_rows - len(included_rows(replayed.truth))


def _rejected_candles(settings: Settings, replayed: _Replayed, config: BacktestConfig) -> list[dict[str, Any]]:
    """Rejected candles that a window of this run would have used, counted once each, by token and reason."""
    (month, calls, by_mint, *_), truth = replayed.month, replayed.truth
    alert = calls["alert_ts_ms"].to_numpy()
    months = list(month_range(month, month_of(int(alert.max()) + _reach_ms(config))))
    rejected = read_rejected(settings.candles_dir, config.interval, months, list(by_mint.code))
    # From the earliest possible entry to the window's end, or to the latest possible entry where there is no window.
    entered = truth.entry_ts >= 0
    last = np.where(
        entered, truth.entry_ts + config.horizon_ms - INTERVALS_MS[config.interval], alert + config.max_entry_delay_ms
    )
    counts: dict[tuple[str, str], list[int]] = {}
    for mint, ts, reason in zip(*(rejected[name].to_pylist() for name in ("mint", "ts_ms", "reason")), strict=True):
        code = by_mint.code[mint]
        rows = by_mint.rows[by_mint.ends[code] - by_mint.counts[code] : by_mint.ends[code]]
        if ts is not None and np.any((alert[rows] + config.latency_ms <= ts) & (ts <= last[rows])):
            counts.setdefault((mint, reason), []).append(ts)
    return [
        {"mint": mint, "reason": reason, "rows": len(times), "first_ts_ms": min(times), "last_ts_ms": max(times)}
        for (mint, reason), times in sorted(counts.items())
    ]


# --- recipes ----------------------------------------------------------------------------------------------------------


def _path_only(run: _Run) -> None:
    _write_truth(run, run.replay([]))


def _policy(run: _Run) -> None:
    policies, both = list(run.config.parsed_policies().items()), run.config.both_orders
    summary = []
    with run.staged.writing("trades") as trades:
        for part in _parts(run, len(policies), run.inputs.calls.num_rows * (2 if both else 1)):
            some = dict(policies[part])
            replayed = run.replay(list(some.values()), both_orders=both)
            _add_trades(run, trades, replayed, some)
            summary += _summary(run, replayed, some)
    _write_rows(run, "summary", summary)


def _optimization(run: _Run) -> None:
    search = _search(run.config)
    searched = _replay_search(run, search)
    first = _write_frontier(run, searched, search)
    _write_best_trades(run, searched, search, first)


def _full(run: _Run) -> None:
    search, policies = _search(run.config), run.config.parsed_policies()
    searched = _replay_search(run, search, list(policies.values()))
    own = _columns(searched.last, searched.last.outcomes.which.shape[1] - len(policies), None)
    _write_truth(run, own)
    _write_trades(run, own, policies)
    _write_rows(run, "summary", _summary(run, own, policies))
    _write_frontier(run, searched, search)


def _v1_baseline(run: _Run) -> None:
    from quantbot_pipeline.search import v1
    from quantbot_pipeline.search.frontier import Group, caller_groups
    from quantbot_pipeline.vocabulary import ALL_CALLERS

    # V1 is defined for the pessimistic order, whatever the configuration says.
    run.config = run.config.model_copy(update={"intrabar": "pessimistic"})
    replayed = run.replay([params.policy() for params in v1.GRID])
    with run.recorder.phase("optimization"):
        calls, truth = run.inputs.calls, replayed.truth
        position = v1.entry_order(truth, calls["call_id"])
        groups = [g for g in caller_groups(calls["caller_name"], truth) if g.name != ALL_CALLERS]
        optimized = v1.optimize(groups, truth, replayed.outcomes, position, run.cost)
        grouped = v1.grouped_params(optimized)
        if grouped is not None:
            members, mean = grouped
            together = Group(ALL_CALLERS, np.concatenate([g.rows for g in members]))
            outcomes = _replay(run.settings, run.inputs, run.config, [mean.policy()], run.recorder).outcomes
            account = v1.run_account(together, mean, 0, truth, outcomes, position, run.cost)
            optimized.insert(0, v1.Optimized([account], *v1.flags_of(account)))
        for one in optimized:
            counts = {reason: n for reason, n in v1.skip_counts(one.accounts[0]).items() if n}
            name = one.accounts[0].group.name
            if counts:
                text = ", ".join(f"{n} calls skipped: {reason}" for reason, n in counts.items())
                run.recorder.report("info", "optimization", text, details={"caller_name": name, **counts})
            if one.flags:
                flagged = {"caller_name": name, "flags": one.flags}
                run.recorder.report("info", "optimization", f"best parameters are {one.flags}", details=flagged)
        ids = calls["call_id"].to_pylist()
        equity = [row for one in optimized for row in v1.equity_rows(one.accounts[0], ids)]
        _write_rows(run, "frontier", v1.frontier_rows(optimized, calls, truth))
        _write_rows(run, "equity", equity)


def _walk_forward(run: _Run) -> None:
    from quantbot_pipeline.search.walk_forward import walk_forward

    config, search = run.config, _search(run.config)
    constraints, objective = _goals(config)
    start = month_start_ms(run.inputs.month)
    first = min(month_start_ms(m.month) for m in (run.inputs, *run.earlier))
    since = {"anchored": first, "rolling": month_start_ms(months_before(run.inputs.month, config.rolling_months))}
    trained = _train(run, search, since)
    with run.recorder.phase("optimization"):
        rows = walk_forward(
            trained.data, start, trained.groups, trained.stats, trained.tested, search, run.cost, constraints, objective
        )  # fmt: skip
        _write_rows(run, "walk_forward", rows)


class _Trained(NamedTuple):
    """All calls up to the tested month; per scheme who is trained and the statistics; the tested month's outcomes."""

    data: "Evaluated"
    groups: "dict[str, list[Group]]"
    stats: dict[str, npt.NDArray[np.float64]]
    tested: "results.Outcomes"


def _train(run: _Run, search: "Candidates", since: dict[str, int]) -> _Trained:
    """Replay the month and all earlier ones, in as many parts of the grid as the memory limit asks for."""
    from quantbot_pipeline.replay.results import concatenate, side_by_side
    from quantbot_pipeline.search.frontier import statistics
    from quantbot_pipeline.search.walk_forward import train_groups
    from quantbot_pipeline.vocabulary import SCHEMES

    hold = parse_policy({"kind": "time_stop", "max_hold_ms": run.config.horizon_ms})
    months = (run.inputs, *run.earlier)
    parts = _parts(run, len(search.policies), sum(m.calls.num_rows for m in months), also=1)
    groups: dict[str, list[Group]] = {}
    stats: dict[str, list[npt.NDArray[np.float64]]] = {scheme: [] for scheme in SCHEMES}
    tested = []
    for part in parts:
        policies = [*search.policies[part], *([hold] if part is parts[-1] else [])]
        replays = _replay_months(run, months, policies, keep=len(parts) == 1)
        with run.recorder.phase("optimization"):
            truth, outcomes = concatenate([r.truth for r in replays], [r.outcomes for r in replays])
            data = _evaluated(replays, truth)
            groups = groups or train_groups(data, month_start_ms(run.inputs.month), since, run.config.horizon_ms)
            for scheme in SCHEMES:
                found = statistics(groups[scheme], truth, outcomes, run.cost, _goals(run.config)[1])
                stats[scheme].append(found[:, : part.stop - part.start])
            tested.append(replays[0].outcomes)
    joined = {scheme: np.concatenate(found, axis=1) for scheme, found in stats.items()}
    return _Trained(data, groups, joined, side_by_side(tested))


def _replay_months(run: _Run, months: Sequence[_Month], policies: Sequence[Policy], *, keep: bool) -> list[_Replayed]:
    """Every month with the same policies, the tested one first; with `keep` they stay for the next month's walk-forward."""
    key = _parameters("walk-forward", run.config, _bounds(run.inputs.month, run.config), run.inputs.month)[
        "config_hash"
    ]
    replays = [run.replay(policies)]
    for inputs in months[1:]:
        known = (inputs.month, inputs.fingerprint, key)
        made = run.cache.get(known) if keep else None
        replays.append(made or _replay(run.settings, inputs, run.config, policies, run.recorder))
        if keep:
            run.cache[known] = replays[-1]
    if keep:
        run.cache[(run.inputs.month, run.inputs.fingerprint, key)] = replays[0]
    return replays


def _evaluated(replays: Sequence[_Replayed], truth: "results.Truth") -> "Evaluated":
    from quantbot_pipeline.search.walk_forward import Evaluated

    return Evaluated(
        callers=np.concatenate([np.array(r.month.calls["caller_name"].to_pylist(), dtype=object) for r in replays]),
        month_start=np.repeat(
            [month_start_ms(r.month.month) for r in replays], [r.month.calls.num_rows for r in replays]
        ),
        truth=truth,
    )


RECIPES: dict[Recipe, Callable[[_Run], None]] = {
    "path-only": _path_only,
    "policy": _policy,
    "optimization": _optimization,
    "full": _full,
    "v1-baseline": _v1_baseline,
    "walk-forward": _walk_forward,
}


def _search(config: BacktestConfig) -> "Candidates":
    return _candidates(json.dumps(config.grid))


@functools.lru_cache(maxsize=4)  # the months of a range search the same grid
def _candidates(grid: str) -> "Candidates":
    from quantbot_pipeline.search.frontier import candidates
    from quantbot_pipeline.search.grid import parse_grid

    return candidates(parse_grid(json.loads(grid)).multiply())


def _goals(config: BacktestConfig) -> "tuple[Constraints, Objective]":
    from quantbot_pipeline.search.objective import Constraints, Objective, parse_model

    constraints = parse_model(Constraints, "constraints", config.constraints)
    return constraints, parse_model(Objective, "objective", config.objective)


class _Searched(NamedTuple):
    """The grid on every caller's calls: groups, statistics (G, P, …), how many parts it took, and the replay of the last."""

    groups: "list[Group]"
    stats: npt.NDArray[np.float64]
    parts: int
    last: _Replayed


def _replay_search(run: _Run, search: "Candidates", also: Sequence[Policy] = ()) -> _Searched:
    """Replay the grid, in as many parts as the memory limit asks for; `also` are the last policies of the last part."""
    from quantbot_pipeline.search.frontier import caller_groups, statistics

    objective = _goals(run.config)[1]
    groups: list[Group] = []
    stats = []
    parts = _parts(run, len(search.policies), run.inputs.calls.num_rows, len(also))
    for part in parts:
        extra = also if part is parts[-1] else ()
        replayed = run.replay([*search.policies[part], *extra], both_orders=bool(extra) and run.config.both_orders)
        with run.recorder.phase("optimization"):
            groups = groups or caller_groups(run.inputs.calls["caller_name"], replayed.truth)
            grid = _columns(replayed, 0, part.stop - part.start) if extra else replayed
            stats.append(statistics(groups, grid.truth, grid.outcomes, run.cost, objective))
    return _Searched(groups, np.concatenate(stats, axis=1), len(parts), replayed)


def _parts(run: _Run, policies: int, calls: int, also: int = 0) -> list[slice]:
    """Slices of so many policies that their outcomes take about the memory limit; `also` are replayed with the last."""
    from quantbot_pipeline.replay.results import MAX_POLICIES, outcome_bytes

    most = range(1, min(policies, MAX_POLICIES - also) + 1)
    fit = bisect_right(most, run.settings.memory_bytes, key=lambda n: outcome_bytes(calls, n))
    size = max(1, fit)
    return [slice(first, min(first + size, policies)) for first in range(0, max(1, policies), size)]


def _columns(replayed: _Replayed, first: int, last: int | None) -> _Replayed:
    """The same replay with some of its policies only."""

    chosen, other = slice(first, last), replayed.other_order
    return replayed._replace(
        outcomes=replayed.outcomes.of_policies(chosen), other_order=None if other is None else other.of_policies(chosen)
    )


def _write_rows(run: _Run, artifact: str, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema([f for f in ARTIFACTS[artifact][1] if f.name != "run_id"])
    run.staged.write(artifact, pa.Table.from_pylist(rows, schema=schema))


PIECE = 1 << 17  # rows of a table that are made at a time


def _write_truth(run: _Run, replayed: _Replayed) -> None:
    from quantbot_pipeline.replay.truth import paths_table

    calls, truth = run.inputs.calls, replayed.truth
    with run.recorder.phase("execution"):
        with run.staged.writing("paths") as paths:
            for rows in _pieces(calls.num_rows, PIECE):
                paths.add(paths_table(calls[rows], truth.of_calls(rows), replayed.rules, run.config.interval))
        with run.staged.writing("features") as features:
            if run.features is None:
                raise ValueError("this recipe has no features")
            for piece in run.features():
                features.add(piece)


def _pieces(calls: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, calls, size))


def _write_trades(run: _Run, replayed: _Replayed, policies: dict[str, Policy]) -> None:
    with run.staged.writing("trades") as trades:
        _add_trades(run, trades, replayed, policies)


def _add_trades(run: _Run, trades: ArtifactWriter, replayed: _Replayed, policies: dict[str, Policy]) -> None:
    """The trades of all policies, one policy after the other, made in pieces; policies of few calls are one piece."""
    from quantbot_pipeline.replay.trades import trades_table

    calls, truth, names = run.inputs.calls, replayed.truth, list(policies)
    at_once = max(1, PIECE // calls.num_rows)
    with run.recorder.phase("execution"):
        for first in range(0, max(1, len(names)), at_once):
            some = slice(first, first + at_once)
            for rows in _pieces(calls.num_rows, PIECE):
                table = trades_table(
                    calls[rows], truth.of_calls(rows), replayed.outcomes.part(rows, some), names[some], run.cost,
                    None if replayed.other_order is None else replayed.other_order.part(rows, some),
                    other_is_optimistic=not replayed.rules.optimistic,
                )  # fmt: skip
                trades.add(table)


def _write_frontier(run: _Run, searched: _Searched, search: "Candidates") -> dict[str, int]:
    """The frontier of every caller; returns the position of each caller's first policy."""
    from quantbot_pipeline.search.frontier import frontier_table, rank

    calls, truth, groups = run.inputs.calls, searched.last.truth, searched.groups
    with run.recorder.phase("optimization"):
        rankings = rank(groups, truth, searched.stats, search, *_goals(run.config))
        run.staged.write("frontier", frontier_table(groups, rankings, calls, truth, search))
    return {group.name: int(ranking.order[0]) for group, ranking in zip(groups, rankings, strict=True)}


def _write_best_trades(run: _Run, searched: _Searched, search: "Candidates", first: dict[str, int]) -> None:
    """The trades of each caller's first policy on its own calls."""
    from quantbot_pipeline.replay.trades import chosen_trades_table

    calls, replayed = run.inputs.calls, searched.last
    column = np.array([first.get(name, 0) for name in calls["caller_name"].to_pylist()], dtype=np.int64)
    outcomes = replayed.outcomes if searched.parts == 1 else _replay_chosen(run, search, column)
    with run.recorder.phase("optimization"):
        if searched.parts == 1:
            outcomes = outcomes.of_chosen(np.arange(len(column)), column)
        ids = pa.array(search.ids, pa.string()).take(pa.array(column))
        run.staged.write("trades", chosen_trades_table(calls, replayed.truth, outcomes, ids, run.cost))


def _replay_chosen(run: _Run, search: "Candidates", column: npt.NDArray[np.int64]) -> "results.Outcomes":
    """The outcome (C, 1) of policy `column` of each call, replayed again, as all outcomes together do not fit into memory."""
    from quantbot_pipeline.replay.results import empty_outcomes, with_exits
    from quantbot_pipeline.vocabulary import INCLUDED

    chosen = np.unique(column)
    outcomes, parts = empty_outcomes(len(column), 1), []
    for part in _parts(run, len(chosen), len(column)):
        again = run.replay([search.policies[p] for p in chosen[part]])
        rows = np.flatnonzero(np.isin(column, chosen[part]) & (again.truth.status == INCLUDED))
        parts.append((rows, again.outcomes.at(rows, np.searchsorted(chosen[part], column[rows]))))
        outcomes.first[rows], outcomes.distinct[rows] = np.arange(len(rows)), 1
    return with_exits(outcomes, parts)


def _summary(run: _Run, replayed: _Replayed, policies: dict[str, Policy]) -> list[dict[str, Any]]:
    """Statistics of every policy over all included calls."""
    from quantbot_pipeline.replay.statistics import STATS, aggregate
    from quantbot_pipeline.replay.truth import included_rows

    rows = included_rows(replayed.truth)
    ends = np.array([len(rows)], dtype=np.int64)
    stats = aggregate(replayed.truth, replayed.outcomes, rows, ends, run.cost)[0]
    calls = run.inputs.calls.num_rows
    counts = {
        "calls_processed": calls,
        "calls_excluded": calls - len(rows),
        "trades_count": len(rows),
        "censored_count": int(replayed.truth.censored[rows].sum()),
    }
    return [
        {"policy_id": name, "policy_params": canonical_json(policy), **counts}
        | {stat: None if np.isnan(value) else float(value) for stat, value in zip(STATS, values, strict=True)}
        for (name, policy), values in zip(policies.items(), stats, strict=True)
    ]


# --- provenance -------------------------------------------------------------------------------------------------------


@functools.cache
def git_provenance() -> tuple[str | None, str | None, bool | None]:
    """(commit, branch, dirty) of the checkout this code runs from; Nones outside one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                # Git distrusts a checkout of another user, as a service's is; but it is the code that is running already.
                ["git", "-c", "safe.directory=*", "-C", str(here), *arguments],  # noqa: S607  (the git of whoever runs this)
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
