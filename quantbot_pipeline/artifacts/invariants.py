"""What must be true of every artifact, whatever the market did: its schema, and rules that hold between its values.

Pure functions over a table. A broken rule is a fault of this program or of the disk, never of the user's data; so a check
that finds one may stop everything that would be built on it. The rules follow docs/semantics.md.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts import anomaly_rules, evidence_rules, feature_rules, model_rules, tuned_rules
from quantbot_pipeline.artifacts.columns import Fault, Mask, above, counts, is_object, named, outside, rates
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.versions import Version, columns_of
from quantbot_pipeline.vocabulary import EXIT_REASONS, LEVELS, PHASES, PROTECTIVE_EXITS, SCHEMES

FEATURE_COUNTS = ("caller_prior_calls", "mint_prior_callers", "mint_prior_calls")
TEXTS_AT_ONCE = 1 << 16  # as Python objects, a hundred bytes each and more
MEASURES = ("avg_return_bps", "median_return_bps", "stop_out_rate", "es95_bps")


class Rows(Protocol):
    """The rows of an artifact: a `pyarrow.Table`, or something that reads a column whenever it is looked at."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def column_names(self) -> list[str]: ...
    def __getitem__(self, name: str, /) -> pa.ChunkedArray: ...


def broken(artifact_type: str, table: Rows, version: Version | None = None) -> list[str]:
    """What is wrong with an artifact's rows, a sentence per column and rule with its count and an example; empty: nothing.

    version: the one that wrote the rows; None: the present one. With another schema than that of the version no values are
    looked at. A rule about a column that the version did not have says nothing; so a rule names the newest column it reads.
    """
    schema = ARTIFACTS[artifact_type][1]
    if wrong := _schema_faults(_schema_of(artifact_type, table, version), table):
        return [f"{artifact_type}.{sentence}" for sentence in wrong]
    lacking = {name for name in schema.names if name not in table.column_names}
    whole = _Whole(table, schema) if lacking else table
    columns = _Columns(whole)
    # Rules compare; where a null or an impossible number makes a comparison void, another rule names it.
    with np.errstate(all="ignore"):
        faults = chain(_not_finite(columns, schema), RULES.get(artifact_type, _no_rules)(columns))
        return [
            f"{artifact_type}.{_sentence(whole, *fault)}"
            for fault in faults
            if fault[0] not in lacking and fault[2].any()
        ]


def _schema_of(artifact_type: str, table: Rows, version: Version | None) -> pa.Schema:
    """Return the columns that the rows of a version have; of one that is not known here, also what the table has more."""
    schema = ARTIFACTS[artifact_type][1]
    if version is None:
        return schema
    names = columns_of(artifact_type, version, schema.names)
    if names is None:
        return pa.schema([*schema, *(field for field in table.schema if field.name not in schema.names)])
    return pa.schema([schema.field(name) for name in names])


class _Whole:
    """The rows of an older version with all columns of the contract; those that it did not have are null."""

    def __init__(self, rows: Rows, schema: pa.Schema) -> None:
        self._rows = rows
        self.schema = schema
        self.num_rows = rows.num_rows
        self.column_names: list[str] = schema.names

    def __getitem__(self, name: str, /) -> pa.ChunkedArray:
        if name in self._rows.column_names:
            return self._rows[name]
        return pa.chunked_array([pa.nulls(self.num_rows, self.schema.field(name).type)])


def _schema_faults(schema: pa.Schema, table: Rows) -> Iterator[str] | list[str]:
    if not table.schema.equals(schema):
        expected, found = (
            {f.name: f"{f.type}{'' if f.nullable else ' not null'}" for f in s} for s in (schema, table.schema)
        )
        absent = [f"{name}: missing" for name in expected if name not in found]
        unknown = [f"{name}: not in the contract" for name in found if name not in expected]
        other = [
            f"{name}: {found[name]} instead of {expected[name]}"
            for name in expected
            if name in found and found[name] != expected[name]
        ]
        return [*absent, *unknown, *other] or [f"{schema.names[0]}: columns are not in the contract's order"]
    nulls = {f.name: table[f.name].null_count for f in schema if not f.nullable}
    return [f"{name}: null in {n} of {table.num_rows} rows" for name, n in nulls.items() if n]


def _sentence(table: Rows, column: str, wrong: str, rows: Mask) -> str:
    """`peak_multiple: below 1 in 3 of 120 rows, e.g. call_id 'x' (0.93)`."""
    example = int(np.argmax(rows))
    keys = [name for name in ("call_id", "caller_name", "policy_id") if name in table.column_names]
    who = next((f"{k} {v!r}" for k in keys if (v := table[k][example].as_py()) is not None), f"row {example + 1}")
    value = str(table[column][example].as_py())
    return f"{column}: {wrong} in {int(rows.sum())} of {len(rows)} rows, e.g. {who} ({value[:80]})"


class _Columns:
    """A table's columns as numpy arrays; a null reads as NaN, 0, False or an empty text, and `absent` tells."""

    def __init__(self, table: Rows) -> None:
        self._table = table
        self.rows = table.num_rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        column = self._table[name]
        if column.null_count:
            fill: dict[pa.DataType, Any] = {pa.float64(): float("nan"), pa.int64(): 0, pa.bool_(): False}
            column = column.fill_null(fill.get(column.type, ""))
        return column.to_numpy()

    def absent(self, name: str) -> Mask:
        return self._table[name].is_null().to_numpy()

    def empty(self, name: str) -> Mask:
        """Rows whose text is empty; a null is not."""
        return self._mask(pc.equal(self._table[name], ""))

    def among(self, name: str, known: Sequence[str]) -> Mask:
        return self._mask(pc.is_in(self._table[name], value_set=pa.array(known, pa.string())))

    def codes(self, *names: str) -> npt.NDArray[np.int64]:
        """A number per row, equal for rows with equal values in all these columns."""
        combined = np.zeros(self.rows, np.int64)
        for name in names:
            encoded = pc.dictionary_encode(self._table[name], null_encoding="encode").combine_chunks()
            own = encoded.indices.to_numpy().astype(np.int64) if self.rows else combined
            combined = np.unique(combined * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
        return combined

    def repeated(self, *names: str) -> Mask:
        """Rows whose values in these columns an earlier row has already."""
        codes = self.codes(*names)
        again = np.ones(self.rows, bool)
        again[np.unique(codes, return_index=True)[1]] = False
        return again

    def unlike(self, name: str, test: Callable[[str], bool]) -> Mask:
        """Rows whose text fails a test; a null passes. A text is tested once, or once in every so many rows."""
        column = self._table[name]
        failing = {
            text
            for first in range(0, len(column), TEXTS_AT_ONCE)
            for text in pc.unique(column[first : first + TEXTS_AT_ONCE]).to_pylist()
            if text is not None and not test(text)
        }
        return self.among(name, list(failing)) & ~self.absent(name) if failing else np.zeros(self.rows, bool)

    def _mask(self, column: pa.ChunkedArray) -> Mask:
        return column.fill_null(False).to_numpy()


def _not_finite(t: _Columns, schema: pa.Schema) -> Iterator[Fault]:
    for name in (f.name for f in schema if f.type == pa.float64()):
        yield name, "not finite", ~np.isfinite(t[name]) & ~t.absent(name)


def _alerts(t: _Columns) -> Iterator[Fault]:
    yield from named(t, "call_id", "mint", "caller_name", "created_at")
    yield "call_id", "repeated", t.repeated("call_id")
    yield "alert_ts_ms", "not a time after 1970", t["alert_ts_ms"] <= 0


def _paths(t: _Columns) -> Iterator[Fault]:
    entry, peak, dd = t["entry_ts_ms"], t["peak_multiple"], t["dd_bps"]
    yield from named(t, "call_id", "caller_name", "mint", "interval")
    yield "call_id", "repeated", t.repeated("call_id")
    yield "p0", "not above 0", ~(t["p0"] > 0)
    yield "entry_ts_ms", "before the alert", entry < t["alert_ts_ms"]
    yield "entry_delay_ms", "not entry_ts_ms - alert_ts_ms", t["entry_delay_ms"] != entry - t["alert_ts_ms"]
    yield "observed_ms", "not above 0", t["observed_ms"] <= 0
    yield from rates(t, "coverage")
    yield "peak_multiple", "below 1", peak < 1
    yield "t_peak_ms", "without a peak above 1, or the other way round", t.absent("t_peak_ms") != (peak == 1)
    yield from _hits(t, peak)
    yield "dd_bps", "outside -10,000 to 0", outside(dd, -10_000, 0)
    yield "dd_to_2x_bps", "without hit_2x, or the other way round", t.absent("dd_to_2x_bps") == t["hit_2x"]
    yield "dd_to_2x_bps", "deeper than dd_bps or above 0", (t["dd_to_2x_bps"] < dd) | (t["dd_to_2x_bps"] > 0)
    for name, times in (
        *((name, t[name]) for name in ("t_2x_ms", "t_3x_ms", "t_4x_ms", "t_peak_ms")),
        ("alert_to_activity_ms", t["alert_ts_ms"] + t["alert_to_activity_ms"]),
    ):
        late = outside(times, entry + 1, entry + t["observed_ms"])  # type: ignore[arg-type]
        yield name, "outside the observed window", late & ~t.absent(name)


def _hits(t: _Columns, peak: npt.NDArray[Any]) -> Iterator[Fault]:
    for k in (2, 3, 4):
        hit, column = t[f"hit_{k}x"], f"t_{k}x_ms"
        yield f"hit_{k}x", f"without {column}, or the other way round", hit == t.absent(column)
        # `high >= k*p0` and `high/p0 >= k` may differ in the last bit.
        yield f"hit_{k}x", "not what peak_multiple says", np.where(hit, peak < k - 1e-9, peak > k + 1e-9)
    for k in (3, 4):
        yield f"hit_{k}x", f"without hit_{k - 1}x", t[f"hit_{k}x"] & ~t[f"hit_{k - 1}x"]
        both = t[f"hit_{k}x"] & t[f"hit_{k - 1}x"]
        yield f"t_{k}x_ms", f"before t_{k - 1}x_ms", both & (t[f"t_{k}x_ms"] < t[f"t_{k - 1}x_ms"])


def _features(t: _Columns) -> Iterator[Fault]:
    yield from named(t, "call_id")
    yield "call_id", "repeated", t.repeated("call_id")
    yield from counts(t, *FEATURE_COUNTS)
    yield "hour_utc", "outside 0 to 23", outside(t["hour_utc"], 0, 23)
    yield "weekday_utc", "outside 1 to 7", outside(t["weekday_utc"], 1, 7)
    yield "mint_prior_callers", "more than mint_prior_calls", t["mint_prior_callers"] > t["mint_prior_calls"]
    for age, count in (
        ("since_callers_last_call_ms", "caller_prior_calls"),
        ("mint_age_ms", "mint_prior_calls"),
    ):
        yield age, f"without {count}, or the other way round", t.absent(age) != (t[count] == 0)
        yield age, "not above 0: knows a call that was not earlier", (t[age] <= 0) & ~t.absent(age)
    yield "features", "not a JSON object with sorted keys", t.unlike("features", is_object)
    yield from feature_rules.recent_calls(t)
    yield from feature_rules.from_candles(t)


def _trades(t: _Columns) -> Iterator[Fault]:
    gross, entry, reason = t["gross_return_bps"], t["entry_px"], "exit_reason"
    yield from named(t, "policy_id", "call_id", "caller_name")
    # A walk-forward run has a call once under each scheme: as its caller's, and as one of all callers' calls.
    yield "call_id", "repeated under one policy", t.repeated("policy_id", "call_id", "caller_name", "scheme")
    yield "scheme", "unknown", ~(t.among("scheme", SCHEMES) | t.absent("scheme"))
    yield "entry_px", "not above 0", ~(entry > 0)
    yield "exit_px", "not above 0", ~(t["exit_px"] > 0)
    yield "exit_ts_ms", "before entry_ts_ms", t["exit_ts_ms"] < t["entry_ts_ms"]
    exposed = t["exit_ts_ms"] - t["entry_ts_ms"]
    yield "time_exposed_ms", "not exit_ts_ms - entry_ts_ms", t["time_exposed_ms"] != exposed
    yield reason, "unknown", ~t.among(reason, EXIT_REASONS)
    expected = (t["exit_px"] / entry - 1) * 10_000
    yield "gross_return_bps", "not what the prices say", above(gross, expected) | above(expected, gross)
    yield "realized_return_bps", "above gross_return_bps", above(t["realized_return_bps"], gross)
    stopped = t.among(reason, PROTECTIVE_EXITS) & (gross < -1e-6)
    yield "stop_out", "not what exit_reason and gross_return_bps say", t["stop_out"] != stopped
    drawdown = t["max_adverse_excursion_bps"]
    yield "max_adverse_excursion_bps", "outside -10,000 to 0", outside(drawdown, -10_000, 0)
    yield from rates(t, "tail_capture")
    yield "fills", "less than 1", t["fills"] < 1
    alone = t.absent("ambiguous") != t.absent("optimistic_return_bps")
    yield "ambiguous", "without optimistic_return_bps, or the other way round", alone


def _summary(t: _Columns) -> Iterator[Fault]:
    trades = t["trades_count"]
    yield "policy_id", "repeated", t.repeated("policy_id")
    yield from counts(t, "calls_processed", "calls_excluded", "trades_count", "censored_count")
    left = t["calls_processed"] - t["calls_excluded"]
    yield "trades_count", "not calls_processed - calls_excluded", trades != left
    yield from _aggregates(t, trades)
    yield from rates(t, "median_tail_capture")
    yield from counts(t, "median_time_exposed_ms")
    quartiles = ("p25_return_bps", "median_return_bps", "p75_return_bps", "p90_return_bps")
    for low, high in pairwise(quartiles):
        yield high, f"below {low}", above(t[low], t[high])
    yield "avg_max_adverse_excursion_bps", "above 0", t["avg_max_adverse_excursion_bps"] > 0


def _aggregates(t: _Columns, trades: npt.NDArray[Any]) -> Iterator[Fault]:
    """Statistics over trades, as the summary and the frontier have them; without a trade there are none."""
    average = t["avg_return_bps"]
    yield "avg_return_bps", "without a trade, or the other way round", t.absent("avg_return_bps") != (trades == 0)
    yield from rates(t, "stop_out_rate", "loss_rate", "avg_tail_capture", "data_end_share")
    yield from counts(t, "avg_time_exposed_ms")
    yield "es95_bps", "above avg_return_bps", above(t["es95_bps"], average)
    yield "p95_drawdown_bps", "outside -10,000 to 0", outside(t["p95_drawdown_bps"], -10_000, 0)
    yield "stressed_avg_return_bps", "above avg_return_bps", above(t["stressed_avg_return_bps"], average)
    yield "censored_count", "more than the trades", t["censored_count"] > trades


def _frontier(t: _Columns) -> Iterator[Fault]:
    caller, rank, feasible, score = t.codes("caller_name"), t["rank"], t["meets_constraints"], t["objective_score"]
    yield from named(t, "caller_name", "policy_id")
    yield "policy_params", "not a JSON object with sorted keys", t.unlike("policy_params", is_object)
    yield "policy_id", "repeated for one caller", t.repeated("caller_name", "policy_id")
    policies = np.bincount(caller, minlength=1)[caller] if t.rows else rank
    gap = outside(rank, 1, policies) | t.repeated("caller_name", "rank")  # type: ignore[arg-type]
    yield "rank", "not 1 to the number of the caller's policies", gap
    yield "meets_constraints", "not what violations say", feasible != t.empty("violations")
    yield from counts(t, "trades", "calls_excluded", "distinct_mints", "censored_count")
    yield "distinct_mints", "more than trades", t["distinct_mints"] > t["trades"]
    yield from _aggregates(t, t["trades"])
    order = np.lexsort([rank, caller])
    same = caller[order][1:] == caller[order][:-1]
    before, after = order[:-1][same], order[1:][same]
    for column, wrong, rows in (
        ("meets_constraints", "ranked behind one that does not", feasible[after] & ~feasible[before]),
        (
            "objective_score",
            "above that of the rank before",
            (feasible[after] == feasible[before]) & above(score[after], score[before]),
        ),
    ):
        yield column, wrong, _at(t.rows, after[rows])


def _at(rows: int, chosen: npt.NDArray[np.int64]) -> Mask:
    mask = np.zeros(rows, bool)
    mask[chosen] = True
    return mask


def _equity(t: _Columns) -> Iterator[Fault]:
    yield from named(t, "caller_name", "policy_id", "call_id")
    yield "event", "neither open nor close", ~t.among("event", ("open", "close"))
    yield "call_id", "opened or closed twice", t.repeated("caller_name", "policy_id", "call_id", "event")
    position, opens = t.codes("caller_name", "policy_id", "call_id"), t.among("event", ("open",))
    ends = np.where(opens, np.isin(position, position[~opens]), np.isin(position, position[opens]))
    yield "call_id", "opened and never closed, or the other way round", ~ends
    account = t.codes("caller_name", "policy_id")
    back = np.flatnonzero((account[1:] == account[:-1]) & (t["ts_ms"][1:] < t["ts_ms"][:-1])) + 1
    yield "ts_ms", "before the event above", _at(t.rows, back)
    yield "size", "not above 0", ~(t["size"] > 0)
    yield "cash", "below 0", t["cash"] < -1e-6
    yield "equity", "below cash", above(t["cash"], t["equity"])


def _walk_forward(t: _Columns) -> Iterator[Fault]:
    tested = t["test_calls"]
    yield from named(t, "caller_name")
    yield "scheme", "unknown", ~t.among("scheme", SCHEMES)
    yield "caller_name", "repeated under one scheme", t.repeated("caller_name", "scheme")
    yield from counts(t, "train_calls", "test_calls")
    yield (
        "policy_params",
        "without policy_id, or the other way round",
        t.absent("policy_params") != t.absent("policy_id"),
    )
    yield "policy_params", "not a JSON object with sorted keys", t.unlike("policy_params", is_object)
    everyone = np.zeros(t.rows, bool)
    for kind, idle in (
        ("out_of_sample", t.absent("policy_id")),
        ("hold", everyone),
        ("pooled", t.absent("pooled_policy_id")),
    ):
        trades = t[f"{kind}_trades"]
        yield f"{kind}_trades", "not test_calls, or 0 without a policy", trades != np.where(idle, 0, tested)
        yield from rates(t, f"{kind}_stop_out_rate")
        yield f"{kind}_es95_bps", "above the mean", above(t[f"{kind}_es95_bps"], t[f"{kind}_avg_return_bps"])
        for measure in MEASURES:
            yield f"{kind}_{measure}", "not 0 without a trade", (trades == 0) & (t[f"{kind}_{measure}"] != 0)
    for measure in MEASURES:
        column = f"in_sample_{measure}"
        yield column, "without policy_id, or the other way round", t.absent(column) != t.absent("policy_id")
    yield from rates(t, "in_sample_stop_out_rate", "out_of_sample_data_end_share")
    void, untested = ~(t["in_sample_avg_return_bps"] > 0), t["out_of_sample_trades"] == 0
    # Runs of earlier versions have null, not 0, where there was no trade.
    wrong = (t.absent("efficiency") != void) & ~(t.absent("efficiency") & untested)
    yield "efficiency", "without a gain in training, or the other way round", wrong


def _errors(t: _Columns) -> Iterator[Fault]:
    yield from named(t, "timestamp", "message")
    yield "level", "unknown", ~t.among("level", LEVELS)
    yield "phase", "unknown", ~t.among("phase", PHASES)
    yield "details", "not a JSON object with sorted keys", t.unlike("details", is_object)


def _no_rules(t: _Columns) -> Iterator[Fault]:
    """Yield nothing: an artifact without rules of its own is held against its schema alone."""
    yield from ()


RULES: dict[str, Callable[[_Columns], Iterator[Fault]]] = {
    "alerts": _alerts,
    "paths": _paths,
    "features": _features,
    "trades": _trades,
    "summary": _summary,
    "frontier": _frontier,
    "walk_forward": _walk_forward,
    "tuned": tuned_rules.tuned,
    "equity": _equity,
    "evidence": evidence_rules.evidence,
    "evidence_times": evidence_rules.evidence_times,
    "evidence_costs": evidence_rules.evidence_costs,
    "predictions": model_rules.predictions,
    "model_report": model_rules.model_report,
    "importance": model_rules.importance,
    "dependence": model_rules.dependence,
    "calibration": model_rules.calibration,
    "models": model_rules.models,
    "anomalies": anomaly_rules.anomalies,
    "errors": _errors,
}
