"""The trades of replayed policies over all months, each policy and month from one run: the newest that replayed it."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from quantbot_pipeline.artifacts.schemas import TRADES
from quantbot_pipeline.catalog.catalog import Catalog, latest_runs_with
from quantbot_pipeline.reports.remarks import read_each, with_months
from quantbot_pipeline.runs.manifest import RunManifest


def replayed_trades(
    catalog: Catalog,
    *,
    policy_id: str | None = None,
    caller: str | None = None,
    month: str | None = None,
    interval: str | None = None,
) -> tuple[pa.Table, list[RunManifest]]:
    """Return the rows of `trades` with a column `month`, by month and policy, and the runs they come from.

    interval: of candles; None takes the newest run, whatever its interval.
    Raises InputError without a catalog, IntegrityError when a file is not what was committed.
    """
    parts = []
    for manifest, policies in _claims(catalog, policy_id, month, interval):
        run_dir = f"{manifest.month}/run_id={manifest.run_id}"
        rows = next(read_each(catalog, [run_dir], "trades"))[1]
        chosen = pc.is_in(rows["policy_id"], value_set=pa.array(policies, pa.string()))
        if caller is not None:
            chosen = pc.and_(chosen, pc.equal(rows["caller_name"], caller))
        parts.append((manifest, rows.filter(chosen)))
    order = [(name, "ascending") for name in ("month", "policy_id", "entry_ts_ms", "call_id")]
    return with_months(TRADES, parts).sort_by(order), [manifest for manifest, _ in parts]


def _claims(
    catalog: Catalog, policy_id: str | None, month: str | None, interval: str | None
) -> Iterator[tuple[RunManifest, list[str]]]:
    """Yield runs, newest first, with the policies that no newer run of the month replayed."""
    claimed: set[tuple[str, str]] = set()
    for run_dir in latest_runs_with(catalog, "summary"):
        if month is not None and not run_dir.startswith(f"{month}/"):
            continue
        manifest, summary = next(read_each(catalog, [run_dir], "summary", ["policy_id"]))
        if interval not in (None, manifest.dataset.interval):
            continue
        names = [name for name in summary["policy_id"].to_pylist() if name is not None]
        mine = [n for n in names if policy_id in (None, n) and (n, manifest.month) not in claimed]
        claimed |= {(name, manifest.month) for name in mine}
        if mine:
            yield manifest, mine
