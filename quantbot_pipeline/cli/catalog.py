"""`quantbot backtest catalog-…`, `verify`, and `quantbot prune`: the runs that there are."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quantbot_pipeline.cli.app import app, backtest_app
from quantbot_pipeline.cli.options import Columns, Format, HomeFolder, OfFormat, OutFile, Sort, open_home
from quantbot_pipeline.cli.output import note, note_unregistered, print_rows
from quantbot_pipeline.cli.showing import show
from quantbot_pipeline.errors import InputError, QuantbotError, counted
from quantbot_pipeline.months import parse_day
from quantbot_pipeline.specs import KINDS, run_types
from quantbot_pipeline.vocabulary import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from quantbot_pipeline.catalog.catalog import Catalog
    from quantbot_pipeline.catalog.sync import SyncReport
    from quantbot_pipeline.home import Home


if TYPE_CHECKING:
    OfRunType = str
    OfKind = str
else:
    OfKind = Literal[tuple(kind.command for kind in KINDS.values())]
    OfRunType = Literal[run_types()]


@backtest_app.command("catalog-sync")
def catalog_sync(
    base_dir: Annotated[Path | None, typer.Option(help="The runs (default: runs/ of the home).")] = None,
    duckdb: Annotated[Path | None, typer.Option(help="The catalog file.")] = None,
    stats: Annotated[bool, typer.Option(help="Print statistics of the cataloged runs.")] = False,
    rebuild: Annotated[bool, typer.Option(help="Forget the file and read every run anew.")] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Register committed runs in the catalog; quarantine what fails verification."""
    from quantbot_pipeline.catalog.catalog import quarantined, run_counts
    from quantbot_pipeline.catalog.sync import sync

    lab = open_home(home)
    catalog = _catalog_of(lab, duckdb, base_dir)
    if base_dir is not None and not catalog.runs.folder.is_dir():
        raise InputError(
            f"{catalog.runs.folder}: no such directory; give the folder that holds the runs with --base-dir"
        )
    report = sync(catalog, rebuild=rebuild)
    if report.published and duckdb is None and base_dir is None:
        _tell_dagster(lab, report)
    distrusted = quarantined(catalog).to_pylist()
    note(
        f"{counted(report.runs, 'run')} cataloged in {catalog.path} ({report.registered} new, {report.removed} gone, "
        f"{len(distrusted)} in quarantine), {report.elapsed_ms:.0f} ms"
    )
    for row in distrusted:
        note(f"quarantine: {row['reason']}")
    if report.set_aside:
        note(f"the old file was unreadable and is now {report.set_aside}")
    if stats:
        table = run_counts(catalog)
        print_rows(table.to_pylist(), fmt, "Catalog", table.column_names)
    elif fmt != "table":
        print_rows([report.model_dump()], fmt, "Sync")


def _tell_dagster(lab: "Home", report: "SyncReport") -> None:
    from quantbot_pipeline.orchestration.report import (
        report_sync,  # imports Dagster: only when there is something to tell
    )

    if failure := report_sync(lab, report):
        note(failure)


def _catalog_of(lab: "Home", file: Path | None, base_dir: Path | None) -> "Catalog":
    """Return the catalog of a home, or the one that the options name."""
    from quantbot_pipeline.catalog.catalog import Catalog
    from quantbot_pipeline.runs.store import LocalRuns

    own = lab.catalog
    if file is None and base_dir is None:
        return replace(own, path=own.path.absolute())
    runs = lab.runs if base_dir is None else LocalRuns(base_dir.absolute())
    return Catalog((file or own.path).absolute(), runs, own.memory_limit, own.lock_timeout_s)


@backtest_app.command("catalog-query")
def catalog_query(
    kind: Annotated[OfKind | None, typer.Option(help="Runs of `quantbot backtest KIND`.")] = None,
    run_type: Annotated[
        OfRunType | None, typer.Option(help="Runs of this type in run.json; a type may have several kinds.")
    ] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Runs that ended like this.")] = None,
    git_branch: Annotated[str | None, typer.Option(help="Branch of the code that made the run.")] = None,
    from_date: Annotated[str | None, typer.Option(help="Runs created on or after this UTC day.")] = None,
    to_date: Annotated[str | None, typer.Option(help="Runs created on or before this UTC day.")] = None,
    name: Annotated[str | None, typer.Option(help="The run of this name.")] = None,
    tag: Annotated[str | None, typer.Option(help="Runs with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many runs, newest first.")] = 20,
    run_id: Annotated[str | None, typer.Option(help="With --artifact-type: print that artifact's path.")] = None,
    artifact_type: Annotated[str | None, typer.Option(help="alerts, paths, trades, summary, frontier, …")] = None,
    base_dir: Annotated[Path | None, typer.Option(help="The runs (default: runs/ of the home).")] = None,
    duckdb: Annotated[Path | None, typer.Option(help="The catalog file.")] = None,
    sort: Sort = None,
    columns: Columns = None,
    fmt: OfFormat = None,
    out: OutFile = None,
    home: HomeFolder = None,
) -> None:
    """List cataloged runs, newest first, or print the path of one artifact."""
    from quantbot_pipeline.catalog.catalog import NOTED_COLUMNS, artifact_path, list_runs

    lab = open_home(home)
    catalog = _catalog_of(lab, duckdb, base_dir)
    if (run_id is None) != (artifact_type is None):
        raise InputError("--run-id and --artifact-type go together")
    if run_id is not None and artifact_type is not None:
        print(artifact_path(catalog, run_id, artifact_type))
        return
    found = list_runs(
        catalog,
        kind=kind,
        run_type=run_type,
        status=status,
        git_branch=git_branch,
        name=name,
        tag=tag,
        limit=limit,
        from_ms=parse_day(from_date, end=False) if from_date else None,
        to_ms=parse_day(to_date, end=True) if to_date else None,
    )
    shown = (
        "kind",
        "month",
        "status",
        "run_id",
        "name",
        "tags",
        "created_at",
        "dataset_calls_count",
        "dataset_interval",
        "git_branch",
    )
    given = {"sort": sort, "columns": columns, "fmt": fmt, "out": out}
    show(lab, given, found, "Runs", NOTED_COLUMNS, printed=shown)
    note_unregistered(catalog)


@backtest_app.command("verify")
def verify(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories, or folders that hold some (default: all of the home).")
    ] = None,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Check every byte of committed runs against their manifests."""
    from quantbot_pipeline.errors import IntegrityError
    from quantbot_pipeline.runs.verify import check_run

    rows: list[dict[str, object]] = []
    for run_dir, opened in _verified(open_home(home), run_dirs):
        with opened as folder:
            try:
                manifest = check_run(folder)
                said, ok = f"{manifest.status}, {len(manifest.artifacts)} artifacts", True
            except IntegrityError as e:
                said, ok = str(e).replace(str(folder), run_dir), False
        rows.append({"run_dir": run_dir, "ok": ok, "detail": said})
    print_rows(rows, fmt, "Verification", ("run_dir", "ok", "detail"))
    if broken := sum(not row["ok"] for row in rows):
        raise QuantbotError(f"{broken} of {len(rows)} run directories cannot be trusted")


def _verified(lab: "Home", given: list[Path] | None) -> "Iterator[tuple[str, AbstractContextManager[Path]]]":
    """Yield how each run is called, and the folder to look at."""
    from quantbot_pipeline.runs.store import run_dirs

    if given or lab.settings.runs_url is None:
        for folder in [found for path in given or [lab.runs.folder] for found in _run_dirs(path)]:
            yield str(folder), nullcontext(folder)
        return
    for run_dir in run_dirs(lab.runs.listing()):
        yield f"{lab.runs.place}/{run_dir}", lab.runs.fresh(run_dir)


def _run_dirs(given: Path) -> list[Path]:
    if not given.is_dir():
        raise InputError(f"{given}: no such run directory")
    if given.name.startswith("run_id="):
        return [given.absolute()]
    inside = sorted([*given.absolute().glob("run_id=*"), *given.absolute().glob("*/run_id=*")])
    if not inside:
        raise InputError(f"{given}: no run directory (run_id=…) in here")
    return inside


@app.command("prune")
def prune_command(
    before: Annotated[str, typer.Option(help="Runs created before this UTC day.")],
    yes: Annotated[bool, typer.Option("--yes", help="Second step: remove what the first step set aside.")] = False,
    force: Annotated[bool, typer.Option(help="Also the newest run of its kind, month and configuration.")] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Remove old runs in two steps: set them aside in runs/.trash/, look, then remove them with --yes."""
    from quantbot_pipeline.catalog.prune import set_aside
    from quantbot_pipeline.catalog.sync import sync

    lab = open_home(home)
    if yes:
        removed = lab.runs.empty_trash(parse_day(before, end=False))
        note(f"{counted(len(removed), 'run')} removed for good")
        print_rows([{"run_dir": path} for path in removed], fmt, "Removed", ("run_dir",))
        return
    sync(lab.catalog)
    moved = set_aside(lab.catalog, parse_day(before, end=False), force=force)
    report = sync(lab.catalog)
    if report.published:
        _tell_dagster(lab, report)
    note(f"{counted(len(moved), 'run')} set aside in {lab.runs.place}/.trash; move back, or remove with --yes")
    print_rows([{"run_dir": path} for path in moved], fmt, "Set aside", ("run_dir",))
