"""What a tear sheet is made from: trades, calls, choices and evidence of one caller, from the runs that all reports use.

Belongs here: which artifacts are read, and what is said when there is nothing to read. Does not: any number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import ARTIFACTS, TRADES
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.reports.remarks import load_newest, manifests_behind, read_each, remarks
from quantbot_pipeline.reports.searches import tested_trades
from quantbot_pipeline.reports.trades import replayed_trades
from quantbot_pipeline.reports.verdicts import Verdicts, newest_verdicts
from quantbot_pipeline.runs.manifest import RunManifest
from quantbot_pipeline.vocabulary import ALL_CALLERS

ORDER = [("entry_ts_ms", "ascending"), ("call_id", "ascending")]
KNOWN = 12  # names in one error


class Gathered(NamedTuple):
    """trades: own ones with `month`, in order of entry. pool: of all callers, with the rule of the random control.

    choices: the caller's rows of `walk_forward` of one scheme by month; none for a policy. paths: the caller's calls. times,
    costs, monthly: rows of the evidence.
    """

    caller: str
    policy_id: str | None
    scheme: str
    months: list[str]
    trades: pa.Table
    pool: pa.Table
    choices: pa.Table
    paths: pa.Table
    verdicts: Verdicts
    evidence: dict[str, Any] | None
    times: pa.Table
    costs: pa.Table
    monthly: pa.Table
    runs: list[RunManifest]
    remarks: list[str]


def gather(
    catalog: Catalog, caller: str, policy_id: str | None = None, interval: str | None = None, scheme: str = "anchored"
) -> Gathered:
    """Read what there is on a caller; on all callers pooled with `__all__`.

    Raises InputError when nothing was traded by this caller or policy, IntegrityError when a file is not what was committed.
    """
    choices = load_newest(catalog, "walk_forward", interval=interval)
    choices = choices.filter(pc.equal(choices["scheme"], scheme))
    paths = load_newest(catalog, "paths", interval=interval)
    if policy_id is None:
        trades = tested_trades(catalog, interval, TRADES.names)
        trades, runs = (
            trades.filter(pc.equal(trades["scheme"], scheme)),
            manifests_behind(catalog, "walk_forward", interval=interval),
        )
        said = remarks(catalog, "walk_forward", interval=interval)
        own, pool = _of(trades, caller), _of(trades, ALL_CALLERS)
    else:
        trades, runs = replayed_trades(catalog, policy_id=policy_id, interval=interval)
        _require_policy(catalog, policy_id, interval, trades)
        said = []
        own, pool = (trades if caller == ALL_CALLERS else _of(trades, caller)), trades
    verdicts = newest_verdicts(catalog, interval)
    judged = {row["caller_name"] for row in verdicts.rows}
    known = judged | {
        *choices["caller_name"].to_pylist(),
        *paths["caller_name"].to_pylist(),
        *trades["caller_name"].to_pylist(),
    }
    if caller not in known | {ALL_CALLERS}:
        raise InputError(_unknown(caller, known))
    chosen = _of(choices, caller).sort_by("month")
    if policy_id is None and not chosen.num_rows:
        raise InputError(
            f"no walk-forward of caller {caller!r}: none of its calls has a window, or none was tested; run `quantbot backtest "
            "walk-forward`, or name a --policy"
        )
    if policy_id is not None and not own.num_rows:
        raise InputError(f"no trades of policy {policy_id!r} on the calls of {caller!r}: none of them has a window")
    months = sorted(set((chosen if policy_id is None else own)["month"].to_pylist()))
    newest = newest_runs_with(catalog, "evidence", interval=interval)
    return Gathered(
        caller=caller,
        policy_id=policy_id,
        scheme=scheme,
        months=months,
        trades=own.sort_by(ORDER),
        pool=pool.sort_by(ORDER) if caller != ALL_CALLERS else pool.slice(0, 0),
        choices=chosen,
        paths=(paths if caller == ALL_CALLERS else _of(paths, caller)).sort_by(ORDER),
        verdicts=verdicts,
        evidence=next((row for row in verdicts.rows if row["caller_name"] == caller), None),
        times=_evidence(catalog, newest[-1:], "evidence_times", caller),
        costs=_evidence(catalog, newest[-1:], "evidence_costs", caller),
        monthly=_of(load_newest(catalog, "evidence", interval=interval), caller),
        runs=runs,
        remarks=said,
    )


def _of(table: pa.Table, caller: str) -> pa.Table:
    return table.filter(pc.equal(table["caller_name"], caller))


def _evidence(catalog: Catalog, run_dirs: Sequence[str], artifact: str, caller: str) -> pa.Table:
    found = [_of(table, caller) for _, table in read_each(catalog, run_dirs, artifact)]
    return pa.concat_tables([ARTIFACTS[artifact][1].empty_table(), *found], promote_options="default")


def _require_policy(catalog: Catalog, policy_id: str, interval: str | None, trades: pa.Table) -> None:
    if trades.num_rows:
        return
    known = sorted(set(replayed_trades(catalog, interval=interval)[0]["policy_id"].to_pylist()))
    raise InputError(
        f"no trades of policy {policy_id!r}: "
        + (f"replayed policies: {_named(known)}" if known else "run `quantbot backtest policy`")
    )


def _unknown(caller: str, known: set[str]) -> str:
    names = sorted(known - {ALL_CALLERS})
    return f"no caller {caller!r}; " + (f"callers: {_named(names)}" if names else "no run is cataloged yet")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:KNOWN]) + (f" and {len(names) - KNOWN} more" if len(names) > KNOWN else "")
