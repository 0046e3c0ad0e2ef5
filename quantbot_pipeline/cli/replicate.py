"""`quantbot replicate`: the committed runs of one place, copied to others."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.options import Format, HomeFolder, open_home
from quantbot_pipeline.cli.output import note, print_rows
from quantbot_pipeline.errors import InputError, QuantbotError, counted

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.runs.replicate import Replication
    from quantbot_pipeline.runs.store import RunStore


@app.command("replicate")
def replicate_command(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SRC DST...]",
            help="Folders of runs, or URLs: from the first to each other (default: the home's runs to QUANTBOT_REPLICAS).",
        ),
    ] = None,
    months: Annotated[
        str | None, typer.Option(help="Only these months: 2024-01, or 2024-01/2024-06. Default: all.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte at the destination, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied, and copy nothing.")] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Copy committed runs to other places, one way; what differs there is named and left as it is."""
    from quantbot_pipeline.runs.replicate import COLUMNS, replicate

    lab = open_home(home)
    source, destinations = _places(lab, places or [])
    chosen = _months(months)
    done = [
        replicate(source, destination, months=chosen, verify=verify, dry_run=dry_run) for destination in destinations
    ]
    rows = [row for one in done for row in one.rows()]
    if rows or fmt != "table":
        print_rows(rows, fmt, "Replication", COLUMNS)
    for one in done:
        note(_summary(one, verified=verify))
    if faults := sum(len(one.faults) for one in done):
        raise QuantbotError(f"{counted(faults, 'run')} not replicated: named above, and left as they are")


def _summary(done: "Replication", *, verified: bool) -> str:
    notes = f", {counted(done.notes, 'note')} copied" if done.notes else ""
    return (
        f"{done.destination}: {counted(len(done.copied), 'run')} copied ({sum(done.copied.values()) / 1e6:,.1f} MB), "
        f"{len(done.alike)} there already{' and verified' if verified else ''}, {len(done.missing)} missing, "
        f"{len(done.differing)} differ, {len(done.broken)} broken at the source{notes}"
    )


def _places(lab: "Home", given: list[str]) -> "tuple[RunStore, list[RunStore]]":
    from quantbot_pipeline.runs.store import LocalRuns

    if not given:
        if not lab.replicas:
            raise InputError("nowhere to copy to: name SRC and DST, or set QUANTBOT_REPLICAS")
        source, destinations = lab.runs, lab.replicas
    elif len(given) == 1:
        raise InputError(f"only one place: name SRC and DST (given: {given[0]})")
    else:
        source, *destinations = (_runs_at(lab, place) for place in given)
    if isinstance(source, LocalRuns):
        _require_runs(source.folder)
    if any(one.place == source.place for one in destinations):
        raise InputError(f"{source.place}: the source is a destination, too; name another place")
    return source, destinations


def _runs_at(lab: "Home", place: str) -> "RunStore":
    from quantbot_pipeline.settings import place_of

    if "://" not in place:
        return lab.runs_at(f"file://{Path(place).expanduser().absolute()}")
    try:
        return lab.runs_at(place_of(place))
    except ValueError as e:
        raise InputError(f"a place for runs {e}") from None


def _require_runs(folder: Path) -> None:
    """Refuse a source that is no folder of runs: nothing would be copied, and all would look well."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of runs")
    if (folder / "runs").is_dir():
        raise InputError(f"{folder}: a home, not a folder of runs; name {folder / 'runs'}")


def _months(text: str | None) -> list[str] | None:
    from quantbot_pipeline.months import month_range
    from quantbot_pipeline.settings import MONTH

    if text is None:
        return None
    first, _, last = text.partition("/")
    last = last or first
    if not re.fullmatch(MONTH, first) or not re.fullmatch(MONTH, last) or first > last:
        raise InputError(f"--months {text}: write YYYY-MM, or the first and the last as YYYY-MM/YYYY-MM")
    return list(month_range(first, last))
