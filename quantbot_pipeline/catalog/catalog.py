"""The published catalog, and questions to it: runs by filter, an artifact's path, the run of each month, statistics.

Read-only, parametrised, never blocking. pyarrow is imported by what gives a table: `catalog-query` needs DuckDB alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import duckdb

from quantbot_pipeline.catalog.schema import NOTED, kind_of_run, newest_runs
from quantbot_pipeline.duck import in_use, is_in_use, memory_database
from quantbot_pipeline.errors import InputError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from quantbot_pipeline.catalog.shared import SharedCatalog
    from quantbot_pipeline.runs.store import RunStore

RUN_COLUMNS = (
    "run_id",
    "run_type",
    "status",
    "month",
    "created_at",
    "git_branch",
    "git_commit",
    "git_dirty",
    "dataset_from",
    "dataset_to",
    "dataset_interval",
    "dataset_calls_count",
    "dataset_calls_excluded",
    "config_hash",
    "timing_total_ms",
    "run_dir",
)


@dataclass(frozen=True)
class Catalog:
    """The published file `path`, the index over `runs`. `memory_limit` is that of a query, `lock_timeout_s` how long a writer waits.

    `months`: the first and the last month that reports read; None: no bound. `shared`: where other machines have the same catalog;
    the file is a copy of it then.
    """

    path: Path
    runs: "RunStore"
    memory_limit: str = "2GB"
    lock_timeout_s: float = 60.0
    months: tuple[str | None, str | None] = (None, None)
    shared: "SharedCatalog | None" = None

    def is_there(self) -> bool:
        """Whether there is a catalog; the newest of one that is shared is in the file then."""
        return self.path.exists() if self.shared is None else self.shared.pull(self.path) is not None

    @property
    def base(self) -> str:
        """What the views are made over: a folder of this machine, or the place that all machines know."""
        return str(self.runs.folder.absolute()) if self.shared is None else self.runs.place


# The file that is being read, and its connection: what is asked meanwhile is answered from the same state of the file.
_held: ContextVar[tuple[Path, duckdb.DuckDBPyConnection] | None] = ContextVar("_held", default=None)


@contextmanager
def reading(catalog: Catalog) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the published file. Raises InputError when there is none or it is broken.

    It is attached to a database of our own. Opened itself, DuckDB would answer from an older file that somebody else in this
    process still has open. A reading inside another one of the same file shares its connection.
    """
    path = catalog.path
    held = _held.get()
    if held is not None and held[0] == path:
        yield held[1]
        return
    if not catalog.is_there():
        place = path if catalog.shared is None else catalog.shared.place
        raise InputError(f"{place}: no catalog yet; make it with `quantbot backtest catalog-sync`")
    with memory_database() as con:
        try:
            con.execute("ATTACH ? AS catalog (READ_ONLY)", [str(path.absolute())])
        except duckdb.Error as e:
            if is_in_use(e):
                raise StoreError(in_use(path)) from None
            raise InputError(
                f"{path}: not readable ({str(e).splitlines()[0][:120]}); mend it with `quantbot backtest catalog-sync --rebuild`"
            ) from None
        con.execute("USE catalog")
        token = _held.set((path, con))
        try:
            yield con
        finally:
            _held.reset(token)
        con.execute("USE memory; DETACH catalog")


class Filters(TypedDict, total=False):
    """Which cataloged runs are meant: `from_ms <= created_at < to_ms` in UTC ms, the newest 20 unless `limit` says otherwise.

    kind: the command that makes such runs. noted: whether somebody gave the run a name, a note or a tag.
    """

    kind: str | None
    run_type: str | None
    status: str | None
    git_branch: str | None
    from_ms: int | None
    to_ms: int | None
    name: str | None
    tag: str | None
    noted: bool | None
    limit: int


NOTED_COLUMNS = (*RUN_COLUMNS, "kind", "name", "note", "tags")
_CONDITIONS = {
    "run_type": "run_type = ?",
    "status": "status = ?",
    "git_branch": "git_branch = ?",
    "from_ms": "created_at >= make_timestamp_ms(?)",
    "to_ms": "created_at < make_timestamp_ms(?)",
    "name": "name = ?",
    "tag": "list_contains(string_split(tags, ','), ?)",
    "noted": "(coalesce(name, note, tags) IS NOT NULL) = ?",
}


def query_runs(catalog: Catalog, **filters: Unpack[Filters]) -> "pa.Table":
    """Cataloged runs, newest first."""
    with reading(catalog) as con:
        return _runs(con, filters).to_arrow_table()


def list_runs(catalog: Catalog, **filters: Unpack[Filters]) -> list[dict[str, Any]]:
    """Return the rows of `query_runs`, without pyarrow: half of the time of a command that lists runs was to import it."""
    with reading(catalog) as con:
        return [dict(zip(NOTED_COLUMNS, row, strict=True)) for row in _runs(con, filters).fetchall()]


def _runs(con: duckdb.DuckDBPyConnection, filters: Filters) -> duckdb.DuckDBPyRelation:
    conditions = {"kind": f"{kind_of_run()} = ?", **_CONDITIONS}
    given = {sql: value for name, sql in conditions.items() if (value := filters.get(name)) is not None}
    sql = (
        f"SELECT {', '.join(RUN_COLUMNS)}, {kind_of_run()} AS kind, name, note, tags FROM ({NOTED}) "
        f"WHERE {' AND '.join(given) or 'true'} "
        "ORDER BY created_at DESC, run_id DESC LIMIT ?"
    )
    return con.sql(sql, params=[*given.values(), filters.get("limit", 20)])


def artifact_path(catalog: Catalog, run_id: str, artifact_type: str) -> Path:
    """The absolute path of one artifact. Raises InputError when the run or the artifact is not cataloged."""
    with reading(catalog) as con:
        rows = con.execute(
            "SELECT artifact_type, artifact_path FROM backtest_artifacts_catalog WHERE run_id = ?", [run_id]
        ).fetchall()
    found = dict(rows)
    if not found:
        raise InputError(absent(catalog, run_id))
    if artifact_type not in found:
        raise InputError(f"run {run_id} has no artifact {artifact_type!r}; it has {', '.join(sorted(found))}")
    run_dir, inside = _apart(found[artifact_type])
    path = (catalog.runs.open(run_dir) / inside).absolute()
    if not path.exists():
        raise InputError(f"{path}: gone, though its run is cataloged; sync the catalog")
    return path


def absent(catalog: Catalog, run_id: str) -> str:
    """What to say of a run that the catalog does not have."""
    name = f"run_id={run_id}"
    if Path(name).name != name:
        return f"run {run_id!r} is not in the catalog; see `quantbot backtest catalog-query`"
    if catalog.runs.trashed(run_id):
        return f"run {run_id!r} was set aside by `quantbot prune`; it lies in {catalog.runs.place}/.trash"
    try:
        catalog.runs.find(run_id)
    except InputError:
        return f"run {run_id!r} is neither in the catalog nor in {catalog.runs.place}: it was deleted, or never was"
    return f"run {run_id!r} is not in the catalog yet: `quantbot backtest catalog-sync`"


def _apart(file: str) -> tuple[str, str]:
    """Return the run directory of a file of the catalog, and the path inside."""
    month, name, inside = file.split("/", 2)
    return f"{month}/{name}", inside


_AMONG = """artifact_type = $artifact AND ($interval::VARCHAR IS NULL OR dataset_interval = $interval)
            AND ($month::VARCHAR IS NULL OR month = $month) AND month BETWEEN coalesce($first, month) AND coalesce($last, month)
            AND ($strategy::VARCHAR IS NULL OR strategy = $strategy)"""


def newest_runs_with(
    catalog: Catalog,
    artifact_type: str,
    *,
    interval: str | None = None,
    month: str | None = None,
    strategy_id: str | None = None,
) -> list[str]:
    """Directories (relative to the base) of the newest completed run of each month that holds the artifact, by month.

    The newest on an interval that could measure no call at all gives way to the newest on another interval that could.
    `strategy_id` tells the searches apart (grid-search, v1-baseline, walk-forward); a full run counts as a grid search.
    """
    with reading(catalog) as con:
        rows = con.execute(
            f"SELECT run_dir FROM ({newest_runs(_AMONG, 'artifact_type')}) ORDER BY month",
            {
                **{"artifact": artifact_type, "interval": interval, "month": month, "strategy": strategy_id},
                **{"first": catalog.months[0], "last": catalog.months[1]},
            },
        ).fetchall()
    return [run_dir for (run_dir,) in rows]


def latest_runs_with(catalog: Catalog, artifact_type: str, limit: int = 500) -> list[str]:
    """Directories of the newest completed run of each kind, month and configuration that holds the artifact, newest first."""
    with reading(catalog) as con:
        rows = con.execute(
            """SELECT r.run_dir FROM latest_runs r JOIN backtest_artifacts_catalog a USING (run_id)
               WHERE artifact_type = ? AND month BETWEEN coalesce(?, month) AND coalesce(?, month)
               ORDER BY r.created_at DESC, run_id DESC LIMIT ?""",
            [artifact_type, *catalog.months, limit],
        ).fetchall()
    return [run_dir for (run_dir,) in rows]


def run_counts(catalog: Catalog) -> "pa.Table":
    """Statistics: runs, months, calls, artifact rows and bytes by run type and status, and what is in quarantine."""
    with reading(catalog) as con:
        return con.sql(
            """SELECT run_type, status, count(*) AS runs, count(DISTINCT month) AS months, min(month) AS first_month,
                      max(month) AS last_month, sum(dataset_calls_count)::BIGINT AS calls, sum(a.n)::BIGINT AS artifact_rows,
                      sum(a.b)::BIGINT AS bytes, round(avg(timing_total_ms), 1) AS avg_total_ms
               FROM backtest_runs_catalog
               LEFT JOIN (SELECT run_id, sum(rows) AS n, sum(bytes) AS b FROM backtest_artifacts_catalog GROUP BY 1) a USING (run_id)
               GROUP BY ALL ORDER BY ALL"""
        ).to_arrow_table()


class MonthNumbers(NamedTuple):
    """What a month of the catalog holds; `kinds` counts runs by kind and status, `newest_run` is the id of the newest."""

    runs: int
    completed: int
    failed: int
    kinds: dict[str, int]
    rows: int
    bytes: int
    quarantined: int
    newest_run: str | None


def month_numbers(catalog: Catalog, months: Sequence[str]) -> dict[str, MonthNumbers]:
    """Return the numbers of some months, those without a run included. Raises InputError without a catalog."""
    with reading(catalog) as con:
        kinds = con.execute(
            """SELECT month, coalesce(json_extract_string(parameters_json, '$.strategy_id'), run_type), status, count(*)
               FROM backtest_runs_catalog WHERE month IN (SELECT unnest(?::VARCHAR[])) GROUP BY ALL ORDER BY ALL""",
            [list(months)],
        ).fetchall()
        totals = con.execute(
            """SELECT month, max_by(run_id, (r.created_at, run_id)), sum(n)::BIGINT, sum(b)::BIGINT
               FROM backtest_runs_catalog r
               LEFT JOIN (SELECT run_id, sum(rows) AS n, sum(bytes) AS b FROM backtest_artifacts_catalog GROUP BY 1) a USING (run_id)
               WHERE month IN (SELECT unnest(?::VARCHAR[])) GROUP BY 1""",
            [list(months)],
        ).fetchall()
        aside = con.execute("SELECT split_part(path, '/', 1), count(*) FROM quarantine GROUP BY 1").fetchall()
    sizes = {month: (newest, rows or 0, size or 0) for month, newest, rows, size in totals}
    found = {}
    for month in months:
        own = [(f"{kind} {status}", status, n) for of, kind, status, n in kinds if of == month]
        newest, rows, size = sizes.get(month, (None, 0, 0))
        found[month] = MonthNumbers(
            runs=sum(n for *_, n in own),
            completed=sum(n for _, status, n in own if status == "completed"),
            failed=sum(n for _, status, n in own if status == "failed"),
            kinds={name: n for name, _, n in own},
            rows=rows,
            bytes=size,
            quarantined=dict(aside).get(month, 0),
            newest_run=newest,
        )
    return found


def quarantined(catalog: Catalog) -> "pa.Table":
    """Run directories that cannot be trusted, and why."""
    with reading(catalog) as con:
        return con.sql("SELECT path, reason, detected_at FROM quarantine ORDER BY path").to_arrow_table()
