"""How a command speaks: data to standard output, everything else to standard error."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quantbot_pipeline.cli.hints import pasteable
from quantbot_pipeline.cli.options import Output, ReportOutput
from quantbot_pipeline.durable import replacing
from quantbot_pipeline.errors import InputError

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.ingest.report import IngestReport


FILE_FORMATS: tuple[ReportOutput, ...] = ("json", "csv", "parquet", "html")


def complain(text: str, status: int) -> int:
    print("quantbot: " + pasteable(" ".join(text.split())), file=sys.stderr)
    return status


def note(text: str) -> None:
    print(pasteable(text), file=sys.stderr)


def note_all(texts: Iterable[str]) -> None:
    for text in texts:
        note(text)


def print_rows(rows: Sequence[dict[str, Any]], fmt: Output, title: str, columns: Sequence[str] = ()) -> None:
    from quantbot_pipeline.cli import tables

    if fmt == "json":
        print(tables.to_json(rows))
    elif fmt == "csv":
        print(tables.to_csv(rows, columns))
    else:
        tables.print_table(rows, title, columns)


def print_report(report: "IngestReport", fmt: Output) -> None:
    for sentence in report.notes:
        note(" ".join(sentence.split()))
    if fmt == "json":
        print(report.model_dump_json(indent=1))
        return
    row = report.model_dump(exclude={"months", "notes", "store", "refusal"})
    for counts in ("rejected", "left_out"):
        row[counts] = ", ".join(f"{reason} {n}" for reason, n in row[counts].items()) or "0"
    for count in ("freak_wicks", "no_liquidity"):
        if not row[count]:
            del row[count]
    row["months"] = f"{report.months[0]} … {report.months[-1]}" if report.months else "none changed"
    print_rows([row], fmt, f"Ingested {report.kind}" + (f" into {report.store}" if report.store else ""))


RUN_COLUMNS = ("run_id", "run_type", "month", "status", "calls", "excluded", "run_dir", "artifacts", "unchanged")


def print_runs(runs: list[dict[str, Any]], fmt: Output, title: str) -> None:
    if fmt != "table":
        print_rows(runs, fmt, title, RUN_COLUMNS)
        return
    # The rows of errors.parquet are errors, warnings and remarks: a sound run has some, too.
    artifacts = [{"notes" if name == "errors" else name: n for name, n in run["artifacts"].items()} for run in runs]
    shown = [
        run | {"artifacts": ", ".join(f"{name} {n}" for name, n in made.items())}
        for run, made in zip(runs, artifacts, strict=True)
    ]
    print_rows(shown, fmt, title, ("month", "run_type", "status", "calls", "excluded", "artifacts", "run_id"))
    bare = sorted({run["month"] for run in runs if run["status"] == "completed" and run["calls"] == run["excluded"]})
    if bare:
        note(
            f"no call of {', '.join(bare)} has a window; errors.parquet of the run tells why (no candles of this interval?)"
        )


def chosen_format(fmt: ReportOutput | None, out: Path | None) -> ReportOutput:
    """Return the format that was asked for, or that the name of the file to write ends with; a table without either."""
    if fmt is not None:
        return fmt
    endings: dict[str, ReportOutput] = {f".{name}": name for name in FILE_FORMATS}
    return "table" if out is None else endings.get(out.suffix.lower(), "table")


def check_target(fmt: str, out: Path | None, lab: "Home") -> None:
    if out is None:
        if fmt == "parquet" and sys.stdout.isatty():
            raise InputError("a Parquet file is nothing to read on a terminal; give --out FILE, or a pipe")
        return
    if fmt == "table":
        raise InputError(
            f"--out needs a name that ends with .json, .csv, .parquet or .html, or --format (given: {out})"
        )
    refuse_folder(out)
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.parent}: no such directory; create it, or write elsewhere with --out")
    if out.resolve().is_relative_to(lab.runs.folder.resolve()):
        raise InputError(f"{out}: runs never change; write outside {lab.runs.folder}")
    kept = (lab.settings.alerts_db, lab.catalog.path, lab.settings.candles_dir)
    if any(out.resolve().is_relative_to(path.resolve()) for path in kept):
        raise InputError(f"{out}: the lab keeps its own data there; write to another file with --out")


def refuse_folder(out: Path | None) -> None:
    """Refuse a folder where --out must name a file, before any work is done for it."""
    if out is not None and out.is_dir():
        raise InputError(f"{out}: a directory; give the name of the file to write with --out")


@contextlib.contextmanager
def writing(out: Path | None) -> Iterator[None]:
    """Say of a file that cannot be written that it is the one of --out, and not the home."""
    try:
        yield
    except PermissionError:
        if out is None:
            raise
        raise InputError(f"{out}: no permission to write there; choose another file with --out") from None


@contextlib.contextmanager
def binary_target(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    with writing(out), replacing(out.absolute()) as temporary, temporary.open("wb") as file:
        yield file


@contextlib.contextmanager
def text_target(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    with (
        writing(out),
        replacing(out.absolute()) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


def note_runs(lab: "Home", artifact_type: str, rows: Sequence[dict[str, Any]], **which: str | None) -> None:
    """Say what a reader of the rows must know of them and of the runs behind them."""
    from quantbot_pipeline.reports.remarks import ended_remarks, remarks

    note_all(remarks(lab.catalog, artifact_type, **which) + ended_remarks(rows))
    note_unregistered(lab.catalog)


def note_unregistered(catalog: "Catalog") -> None:
    """Say how many committed runs a report knows nothing of, if any."""
    from quantbot_pipeline.catalog.last_sync import unregistered_remarks

    note_all(unregistered_remarks(catalog))
