"""The newest run of every month that holds an artifact, verified and as one table: what every report starts from."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, newest_runs_with
from quantbot_pipeline.months import iso_ms
from quantbot_pipeline.runs.manifest import RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.specs import maker_of, settings_behind
from quantbot_pipeline.vocabulary import MUCH_ENDED


def load_newest(
    catalog: Catalog,
    artifact_type: str,
    *,
    interval: str | None = None,
    month: str | None = None,
    strategy_id: str | None = None,
) -> pa.Table:
    """The artifact's rows with a column `month`, month after month; no rows without any run.

    Raises IntegrityError when a file is not what was committed, InputError when there is no catalog.
    """
    run_dirs = newest_runs_with(catalog, artifact_type, interval=interval, month=month, strategy_id=strategy_id)
    return with_months(ARTIFACTS[artifact_type][1], read_each(catalog, run_dirs, artifact_type))


def with_months(schema: pa.Schema, parts: Iterable[tuple[RunManifest, pa.Table]]) -> pa.Table:
    """Return the rows of some runs one after the other, with the month of each one's run in a column `month`."""
    tables = [rows.append_column("month", pa.repeat(pa.scalar(m.month), rows.num_rows)) for m, rows in parts]
    none = schema.append(pa.field("month", pa.string())).empty_table()
    return pa.concat_tables([none, *tables], promote_options="default")  # a newer run may have columns of its own


def remarks(
    catalog: Catalog,
    artifact_type: str,
    *,
    interval: str | None = None,
    month: str | None = None,
    strategy_id: str | None = None,
) -> list[str]:
    """What a reader of the numbers must know of the runs behind them: there are none, parts of months, unlike settings."""
    which = {"interval": interval, "month": month, "strategy_id": strategy_id}
    manifests = manifests_behind(catalog, artifact_type, **which)
    if not manifests:
        maker = maker_of(artifact_type, strategy_id)
        return [
            f"no cataloged run holds such {artifact_type}: `quantbot backtest {maker} --from MONTH --to MONTH` makes one"
        ]
    said = [
        f"{m.month}: only calls from {iso_ms(m.parameters['from_ms'])} to {iso_ms(m.parameters['to_ms'])}, by run {m.run_id}"
        for m in manifests
        if {"from_ms", "to_ms"} <= m.parameters.keys()
    ]
    if unlike := mixed_settings(manifests, artifact_type, strategy_id):
        said.append(f"the months behind these numbers were not run alike; they differ in {', '.join(unlike)}")
    if artifact_type == "walk_forward" and (old := [m.month for m in manifests if "trades" not in m.artifacts]):
        said.append(
            f"the runs of {', '.join(old)} hold no test trades, so medians, shortfall and data_end_share are missing: "
            "make them again with `quantbot backtest walk-forward`"
        )
    return said


def manifests_behind(catalog: Catalog, artifact_type: str, **which: str | None) -> list[RunManifest]:
    """Return the manifests of the newest run of each month that holds the artifact, by month."""
    run_dirs = newest_runs_with(catalog, artifact_type, **which)
    return [read_manifest(catalog.runs.open(run_dir)) for run_dir in run_dirs]


def mixed_settings(manifests: Sequence[RunManifest], artifact_type: str, strategy_id: str | None = None) -> list[str]:
    """Return the settings in which runs differ, of those that the artifact depends on; a run may lack one that is newer."""
    return [
        name
        for name in sorted(settings_behind(artifact_type, strategy_id))
        if len({repr(m.parameters[name]) for m in manifests if name in m.parameters}) > 1
    ]


NAMED = 8  # callers in one remark


def ended_remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what to say of the callers in a report of whose trades more than a fifth end because the data end.

    rows: of the leaderboard, a frontier or a walk-forward. Of a frontier the first policies count.
    """
    ended: dict[str, float] = {}
    counted: dict[str, int] = {}
    for row in rows:
        share, n = row.get("data_end_share"), row.get("trades", row.get("calls", 0))
        if share is not None and row.get("rank", 1) == 1:
            name = row["caller_name"]
            ended[name], counted[name] = ended.get(name, 0.0) + share * n, counted.get(name, 0) + n
    shares = {name: ended[name] / n for name, n in counted.items() if n}
    found = sorted((-share, name) for name, share in shares.items() if share > MUCH_ENDED)
    if not found:
        return []
    named = ", ".join(f"{name!r} {-share:.0%}" for share, name in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    what = "trades" if "trades" in rows[0] else "calls"
    return [
        f"the data end before the window does in more than {MUCH_ENDED:.0%} of the {what} of {named}{more}: a token that "
        "stopped trading could not be sold at its last close; stressed means take such trades as a total loss"
    ]


def read_each(
    catalog: Catalog, run_dirs: Sequence[str], artifact_type: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[RunManifest, pa.Table]]:
    """(manifest, verified rows) of each run in turn: for artifacts that are too large to hold for all months at once."""
    for run_dir in run_dirs:
        run = catalog.runs.open(run_dir)
        manifest = read_manifest(run)
        yield manifest, read_artifact(run, manifest, artifact_type, columns)
