"""What the last sync saw, kept beside the catalog: it tells in a millisecond that there is nothing new.

It is valid only for the very catalog file it was written with; losing it costs a slower sync and nothing else.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.catalog.schema import CATALOG_VERSION
from quantbot_pipeline.durable import replacing
from quantbot_pipeline.errors import counted
from quantbot_pipeline.runs.store import signature_of

if TYPE_CHECKING:
    from quantbot_pipeline.runs.store import Listing


class LastSync(BaseModel):
    """Signatures of the catalog file, of the month directories that need no second look and of the notes, and the number of runs.

    Of another version of the catalog nothing holds: it is made anew.
    """

    version: str = ""
    catalog: str = ""
    base: str = ""
    months: dict[str, str] = {}
    notes: str = ""
    runs: int = 0


def due_months(catalog: Catalog, listing: "Listing | None" = None) -> list[str]:
    """Return the months in which a sync might find something: their directory is not as the last sync left it, or gone.

    All months when the catalog file is not the one that the last sync left. No run and no DuckDB file is read. `listing` is a
    look at the runs that was taken before.
    """
    now, seen = (listing or catalog.runs.listing()).months, read_last_sync(catalog).months
    changed = {month for month, signature in now.items() if seen.get(month) != signature}
    return sorted(changed | (seen.keys() - now.keys()))


def unregistered_runs(catalog: Catalog) -> int:
    """Return how many run directories a sync would look at for the first time: they are in no report.

    A month that is as the last sync left it is not listed. Raises InputError without a catalog.
    """
    listing = catalog.runs.listing()
    due = due_months(catalog, listing)
    names = {f"{month}/{name}" for month in due if month in listing.months for name in listing.names(month)}
    if not names:
        return 0
    with reading(catalog) as con:
        known = con.execute("SELECT run_dir FROM backtest_runs_catalog UNION SELECT path FROM quarantine").fetchall()
    return len(names - {path for (path,) in known})


def unregistered_remarks(catalog: Catalog) -> list[str]:
    """Return what to say of committed runs that are not in the catalog; nothing where there are none."""
    if not (missing := unregistered_runs(catalog)):
        return []
    they = "it is" if missing == 1 else "they are"
    return [
        f"{counted(missing, 'committed run')} not in the catalog, so {they} in no report: `quantbot backtest catalog-sync`"
    ]


def read_last_sync(catalog: Catalog) -> LastSync:
    """What the last sync of this catalog file and base; an empty one if there is none that fits."""
    try:
        last = LastSync.model_validate_json(_path(catalog.path).read_bytes())
    except (OSError, ValidationError):
        return LastSync()
    wanted = (CATALOG_VERSION, catalog_signature(catalog.path), str(catalog.runs.folder.absolute()))
    return last if last.catalog and (last.version, last.catalog, last.base) == wanted else LastSync()


def write_last_sync(catalog: Catalog, signature: str, months: dict[str, str], notes: str, runs: int) -> None:
    """Remember a finished sync, and the signature of the catalog that it left."""
    last = LastSync(
        version=CATALOG_VERSION,
        catalog=signature,
        base=str(catalog.runs.folder.absolute()),
        months=months,
        notes=notes,
        runs=runs,
    )
    with (
        contextlib.suppress(FileNotFoundError),
        replacing(_path(catalog.path)) as temporary,
    ):  # taken away: nothing is lost
        temporary.write_text(last.model_dump_json())


def catalog_signature(catalog: Path) -> str:
    """Tells this catalog file from every other; that of no file fits none."""
    try:
        return signature_of(catalog)
    except FileNotFoundError:
        return ""


def catalog_version(catalog: Catalog) -> str:
    """Return the version that a catalog file says; empty where it says none. Raises InputError without a readable file."""
    with reading(catalog) as con:
        if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'catalog_meta'").fetchall():
            return ""
        said = con.execute("SELECT value FROM catalog_meta WHERE key = 'version'").fetchall()
    return str(said[0][0]) if said else ""


def _path(catalog: Path) -> Path:
    return catalog.with_name(f".{catalog.name}.memo.json")
