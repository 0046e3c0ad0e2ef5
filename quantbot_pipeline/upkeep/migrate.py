"""`quantbot migrate`: bring the stores of a home up to the versions that this program writes.

Runs are never rewritten: they are brought up whenever they are read. The catalog is made anew. A store is changed as a copy that
takes its place at the end, so that a kill at any moment leaves the old file or the new one.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.home import Home
from quantbot_pipeline.versions import format_of, is_older

COPIED_PER_S = 100_000_000  # bytes; a guess on the careful side
COLUMNS = ("store", "path", "from", "to", "does", "copies_mb", "about_s", "done")


class Due(NamedTuple):
    """One thing to do: which store, its file, versions before and after, what is done, and how many bytes are copied for it."""

    store: str
    path: Path
    before: str
    after: str
    does: str
    copied: int


def due(home: Home) -> list[Due]:
    """Return what a migration of a home would do; nothing is changed.

    Raises InputError for a store of a newer major version, StoreError while another program writes to one.
    """
    return [*_calls(home), *_catalog(home)]


def migrate(home: Home, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Do what is due, or only say it; return one row for each, in the columns COLUMNS.

    Raises StoreError when the disk has no room for the copies; nothing is changed then.
    """
    found = due(home)
    needed = max((one.copied for one in found), default=0)
    free = shutil.disk_usage(home.path).free
    if needed > free:
        raise StoreError(
            f"{home.path}: a copy of {needed / 1e6:,.1f} MB is made and {free / 1e6:,.1f} MB are free; free some space, then run again"
        )
    rows = []
    for one in found:
        if not dry_run:
            {"calls": _bring_calls_up, "catalog": _make_catalog_anew}[one.store](home)
        about = round(one.copied / COPIED_PER_S, 1)
        told = (one.store, str(one.path), one.before, one.after, one.does, round(one.copied / 1e6, 1), about)
        rows.append(dict(zip(COLUMNS, (*told, not dry_run), strict=True)))
    return rows


def _calls(home: Home) -> Iterator[Due]:
    from quantbot_pipeline.market.calls import version_of

    store, known = home.calls, format_of("calls")
    if home.settings.calls_db is not None or not store.path.exists():  # somebody else's file is never changed
        return
    found = version_of(store)
    if is_older("calls", found):
        does = "adds the tables and columns of this version to a copy, which takes the file's place"
        yield Due("calls", store.path, str(found), known.current, does, store.path.stat().st_size)


def _bring_calls_up(home: Home) -> None:
    from quantbot_pipeline.duck import published_duckdb
    from quantbot_pipeline.market.calls import bring_up

    with published_duckdb(home.calls.path, home.calls.lock_timeout_s) as publication:
        bring_up(publication.connect(), home.calls.path)
        publication.changed = True


def _catalog(home: Home) -> Iterator[Due]:
    from quantbot_pipeline.catalog.last_sync import catalog_version

    path, known = home.catalog.path, format_of("catalog")
    if home.catalog.is_there() and (found := catalog_version(home.catalog)) != known.current:
        does = "makes the file anew from the runs"
        yield Due("catalog", path, found or "none", known.current, does, path.stat().st_size)


def _make_catalog_anew(home: Home) -> None:
    from quantbot_pipeline.catalog.sync import sync

    sync(home.catalog, rebuild=True)
