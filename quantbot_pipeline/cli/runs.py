"""`quantbot runs …`: name, tag and annotate runs, show them, compare two, set some aside.

RUN is an id, the beginning of one, a name, or a month (its newest completed run; `--kind` where there are several).
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantbot_pipeline.cli.app import runs_app
from quantbot_pipeline.cli.options import SHOWN, HomeFolder, Options, add_command, open_home
from quantbot_pipeline.cli.output import note, note_all
from quantbot_pipeline.cli.showing import show
from quantbot_pipeline.errors import InputError, counted

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home

Run = Annotated[str, typer.Argument(help="A run: id, beginning of an id, name, or month.")]
Kind = Annotated[str | None, typer.Option(help="Of a month: the run of `quantbot backtest KIND`.")]


def _change(home: Path | None, run: str, kind: str | None, write: Callable[["Home", str], None]) -> None:
    """Write something about a run, and show it in the catalog."""
    from quantbot_pipeline.catalog.chosen import chosen_run
    from quantbot_pipeline.materialize import register

    lab = open_home(home)
    run_id = chosen_run(lab.catalog, run, kind)["run_id"]
    write(lab, run_id)
    note_all(register(lab))
    note(f"run {run_id}: {_said(lab, run_id)}")


def _said(lab: "Home", run_id: str) -> str:
    from quantbot_pipeline.runs.notes import RunNotes, read_notes

    notes = read_notes(lab.runs.journal).get(run_id, RunNotes())
    parts = (
        f"name {notes.name}" if notes.name else "no name",
        f"tags {', '.join(notes.tags)}" if notes.tags else "no tags",
        f"note {notes.note!r}" if notes.note else "no note",
    )
    return ", ".join(parts)


@runs_app.command("name")
def name_command(
    run: Run,
    name: Annotated[str | None, typer.Argument(help="The name; none takes it away.")] = None,
    move: Annotated[bool, typer.Option("--move", help="Take the name from the run that has it.")] = False,
    kind: Kind = None,
    home: HomeFolder = None,
) -> None:
    """Give a run a name, which then stands for its id; no two runs of a home have the same."""
    from quantbot_pipeline.runs.notes import name_run

    _change(
        home,
        run,
        kind,
        lambda lab, run_id: name_run(lab.runs.journal, run_id, name, move=move, timeout_s=_patience(lab)),
    )


@runs_app.command("tag")
def tag_command(
    run: Run,
    tags: Annotated[list[str], typer.Argument(help="Tags.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away.")] = False,
    kind: Kind = None,
    home: HomeFolder = None,
) -> None:
    """Add tags to a run, or take them away."""
    from quantbot_pipeline.runs.notes import tag_run

    add, gone = ([], tags) if remove else (tags, [])
    _change(home, run, kind, lambda lab, run_id: tag_run(lab.runs.journal, run_id, add, gone, timeout_s=_patience(lab)))


@runs_app.command("note")
def note_command(
    run: Run,
    text: Annotated[str, typer.Argument(help="The note; an empty one takes it away.")],
    kind: Kind = None,
    home: HomeFolder = None,
) -> None:
    """Write the note of a run, in place of the one before."""
    from quantbot_pipeline.runs.notes import note_run

    _change(home, run, kind, lambda lab, run_id: note_run(lab.runs.journal, run_id, text, timeout_s=_patience(lab)))


def _patience(lab: "Home") -> float:
    return lab.settings.lock_timeout_s


def _show(given: dict[str, Any]) -> None:
    from quantbot_pipeline.catalog.chosen import chosen_run
    from quantbot_pipeline.reports.differences import FACT_COLUMNS, facts

    lab = open_home(given["home"])
    found = chosen_run(lab.catalog, given["run"], given["kind"])
    rows = facts(lab.runs.open(found["run_dir"]))
    show(lab, given, rows, f"Run {found['run_id']}: {found['kind']} {found['month']}", FACT_COLUMNS)
    note(_said(lab, found["run_id"]))


def _diff(given: dict[str, Any]) -> None:
    from quantbot_pipeline.catalog.chosen import chosen_run
    from quantbot_pipeline.reports.differences import DIFFERENCE_COLUMNS, differences

    lab = open_home(given["home"])
    one, other = (chosen_run(lab.catalog, given[letter], given["kind"]) for letter in ("a", "b"))
    rows = differences(*(lab.runs.open(run["run_dir"]) for run in (one, other)))
    show(lab, given, rows, "Differences", DIFFERENCE_COLUMNS)
    for letter, run in (("a", one), ("b", other)):
        note(f"{letter}: {run['kind']} {run['month']}, run {run['run_id']}")
    if not rows:
        note("they differ in nothing")


_OF_RUN: Options = {"kind": (Kind, None), **SHOWN, "home": (HomeFolder, None)}
add_command(
    runs_app,
    "show",
    "Show what a run was made from, what it holds and what it measured.",
    {"run": (Run, inspect.Parameter.empty)} | _OF_RUN,
    _show,
)
add_command(
    runs_app,
    "diff",
    "Show in what two runs, or two months, differ: inputs, code, parameters, results.",
    dict.fromkeys(("a", "b"), (Run, inspect.Parameter.empty)) | _OF_RUN,
    _diff,
)


@runs_app.command("delete")
def delete_command(
    runs: Annotated[list[str], typer.Argument(help="Runs: ids, beginnings of ids, names, or months.")],
    force: Annotated[bool, typer.Option(help="Also the newest run of its kind, month and configuration.")] = False,
    kind: Kind = None,
    home: HomeFolder = None,
) -> None:
    """Set runs aside in runs/.trash/, as `quantbot prune` does, which also removes them for good."""
    from quantbot_pipeline.catalog.chosen import chosen_run
    from quantbot_pipeline.catalog.prune import newest_of
    from quantbot_pipeline.materialize import register

    lab = open_home(home)
    found = {row["run_id"]: row for row in (chosen_run(lab.catalog, run, kind) for run in runs)}
    if not force and (kept := newest_of(lab.catalog, list(found))):
        raise InputError(
            f"run {kept[0]} is the newest of its kind, month and configuration, which reports read; --force takes it"
        )
    moved = lab.runs.to_trash(row["run_dir"] for row in found.values())
    note_all(register(lab))
    note(
        f"{counted(len(moved), 'run')} set aside in {lab.runs.place}/.trash; move back, or remove with `quantbot prune --yes`"
    )
