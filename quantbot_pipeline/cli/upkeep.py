"""`quantbot validate` and `quantbot migrate`: files of every version."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.options import Format, HomeFolder, open_home
from quantbot_pipeline.cli.output import note, print_rows
from quantbot_pipeline.errors import InputError, QuantbotError, counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from quantbot_pipeline.home import Home


@app.command("validate")
def validate_command(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs: directories, ids, beginnings of ids, names, or months.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All runs and stores of the home; the default when no run is named.")
    ] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Check schemas, versions and invariants of runs, stores and catalog, whatever version wrote them."""
    from quantbot_pipeline.upkeep.validate import COLUMNS, validate_run, validate_stores

    if runs and everything:
        raise InputError("--all checks every run; leave the names of runs out, or --all")
    lab = open_home(home)
    rows = []
    for opened in (_named(lab, run) for run in runs) if runs else _all(lab):
        with opened as folder:
            rows.append(validate_run(folder))
    rows += [] if runs else validate_stores(lab)
    print_rows(rows, fmt, "Validation", COLUMNS)
    broken = sum(not row["ok"] for row in rows)
    if broken:
        raise QuantbotError(f"{broken} of {len(rows)} cannot be trusted")


def _named(lab: "Home", run: str) -> "AbstractContextManager[Path]":
    from quantbot_pipeline.catalog.chosen import chosen_run

    if Path(run).is_dir():
        return nullcontext(Path(run).absolute())
    return lab.runs.fresh(chosen_run(lab.catalog, run)["run_dir"])


def _all(lab: "Home") -> "Iterator[AbstractContextManager[Path]]":
    from quantbot_pipeline.runs.store import run_dirs

    for run_dir in run_dirs(lab.runs.listing()):
        yield lab.runs.fresh(run_dir)


@app.command("migrate")
def migrate_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Bring the stores of a home up to the versions that this program writes; runs are never rewritten."""
    from quantbot_pipeline.upkeep.migrate import COLUMNS, migrate

    rows = migrate(open_home(home), dry_run=dry_run)
    print_rows(rows, fmt, "Migration", COLUMNS)
    if not rows:
        note("every store is of this version")
    elif dry_run:
        note(f"{counted(len(rows), 'store')} to bring up; `quantbot migrate` does it")
