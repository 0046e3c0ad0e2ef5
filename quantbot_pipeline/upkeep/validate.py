"""`quantbot validate`: schema, version and invariants of everything in a home, whatever version wrote it.

It reads and changes nothing. A file that cannot be trusted is a row with a sentence, never an exception.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.errors import IntegrityError, QuantbotError, counted
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.inspection import inspect_run
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.versions import ARTIFACT, is_older, read_version

COLUMNS = ("what", "where", "version", "ok", "detail")
Row = dict[str, Any]


def validate_run(run_dir: Path) -> Row:
    """Return the row of one run: its bytes, then the schema and the invariants of every artifact that this version knows."""
    where = f"{run_dir.parent.name}/{run_dir.name}"
    try:
        manifest = check_run(run_dir)
    except IntegrityError as e:
        return _row("run", where, "", str(e))
    older = []
    for name, entry in sorted(manifest.artifacts.items()):
        version = read_version(name, entry.version or ARTIFACT.unsaid, run_dir, IntegrityError)
        older += [f"{name} {version}"] if is_older(name, version) else []
    said = "; ".join([f"manifest {manifest.schema_version.manifest}", *older])
    if manifest.status != "completed":
        return _row("run", where, said, "", f"{manifest.status}: {manifest.error}")
    known = [name for name in manifest.artifacts if name in ARTIFACTS]
    inspection = inspect_run(run_dir, known)
    faults = dict.fromkeys(fault for found in inspection.faults.values() for fault in found)
    unknown = sorted(manifest.artifacts.keys() - ARTIFACTS.keys())
    more = f"; not known to this version: {', '.join(unknown)}" if unknown else ""
    rows = sum(inspection.rows.values())
    return _row(
        "run", where, said, "; ".join(faults), f"{counted(len(known), 'artifact')}, {counted(rows, 'row')}{more}"
    )


def validate_stores(home: Home) -> Iterator[Row]:
    """Yield a row for the store of calls, each file of candles, the journal of notes and the catalog, where they are there."""
    yield from _judged("calls", [home.calls.path], lambda path: _calls(home))
    files = sorted(home.candles.folder.glob("interval=*/month=*/*.parquet"))
    yield from _judged("candles", files, _candles)
    from quantbot_pipeline.runs.notes import JOURNAL, NOTES

    if home.settings.runs_url is None:
        yield from _judged("journal", [home.runs.folder / NOTES / JOURNAL], lambda path: _journal(home))
    else:
        yield from _looked_at("journal", f"{home.runs.place}/{NOTES}", lambda: _journal(home))
    yield from _judged("catalog", [home.catalog.path], lambda path: _catalog(home))


def _row(what: str, where: str, version: str, fault: str, detail: str = "") -> Row:
    return dict(zip(COLUMNS, (what, where, version, not fault, fault or detail), strict=True))


def _judged(what: str, files: Iterable[Path], look: Callable[[Path], tuple[str, str]]) -> Iterator[Row]:
    for path in files:
        if not path.exists():
            continue
        where = "/".join(path.parts[-3:] if what == "candles" else path.parts[-2:])
        yield from _looked_at(what, where, lambda path=path: look(path))  # type: ignore[misc]


def _looked_at(what: str, where: str, look: Callable[[], tuple[str, str]]) -> Iterator[Row]:
    try:
        version, detail = look()
    except QuantbotError as e:
        yield _row(what, where, "", str(e))
    else:
        yield _row(what, where, version, "", detail)


def _calls(home: Home) -> tuple[str, str]:
    from quantbot_pipeline.artifacts.invariants import broken
    from quantbot_pipeline.artifacts.schemas import conform
    from quantbot_pipeline.market.calls import month_statistics, read_calls, version_of
    from quantbot_pipeline.months import parse_day

    version, calls = version_of(home.calls), 0
    for month in month_statistics(home.calls):
        found = read_calls(home.calls, parse_day(month, end=False), parse_day(month, end=True)).calls
        calls += found.num_rows
        try:
            faults = broken("alerts", conform("alerts", found))
        except ValueError as e:
            faults = [str(e)]
        if faults:
            raise IntegrityError(f"{month}: {'; '.join(faults)}")
    return str(version), counted(calls, "call")


def _candles(path: Path) -> tuple[str, str]:
    from quantbot_pipeline.market.candle_check import check_candle_file

    found = check_candle_file(path)
    return str(found.version), counted(found.rows, "row")


def _journal(home: Home) -> tuple[str, str]:
    from quantbot_pipeline.runs.notes import journal_version, read_notes

    return str(journal_version(home.runs.journal)), f"notes on {counted(len(read_notes(home.runs.journal)), 'run')}"


def _catalog(home: Home) -> tuple[str, str]:
    from quantbot_pipeline.catalog.catalog import quarantined, reading
    from quantbot_pipeline.catalog.last_sync import catalog_version, unregistered_runs
    from quantbot_pipeline.versions import format_of

    version = catalog_version(home.catalog)
    if version != format_of("catalog").current:
        raise IntegrityError(
            f"catalog version {str(version)[:20]} is not {format_of('catalog').current}: make it anew with `quantbot migrate`"
        )
    with reading(home.catalog) as con:
        ((runs,),) = con.execute("SELECT count(*) FROM backtest_runs_catalog").fetchall()
    aside, new = quarantined(home.catalog).num_rows, unregistered_runs(home.catalog)
    return version, f"{counted(runs, 'run')}, {aside} in quarantine, {new} not registered yet"
