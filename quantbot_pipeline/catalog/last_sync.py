"""What the last sync saw, kept beside the catalog: it tells in a millisecond that there is nothing new.

A memo is valid only for the very catalog file it was written with; losing it costs a slower sync and nothing else.
"""

import contextlib
import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from quantbot_pipeline.catalog.schema import CATALOG_VERSION
from quantbot_pipeline.durable import replacing


class Memo(BaseModel):
    """Signatures of the catalog file and of the month directories that need no second look, and the number of runs.

    Of another version of the catalog nothing holds: it is made anew.
    """

    version: str = ""
    catalog: str = ""
    base: str = ""
    months: dict[str, str] = {}
    runs: int = 0


def is_due(base: Path, catalog: Path) -> bool:
    """Whether a sync might find something: a month's directory, or the catalog file, is not as the last sync left it."""
    months = month_signatures(base)
    return bool(months) and read_memo(base, catalog).months != months


def read_memo(base: Path, catalog: Path) -> Memo:
    """The memo of this catalog file and base; an empty one if there is none that fits."""
    try:
        memo = Memo.model_validate_json(_path(catalog).read_bytes())
    except (OSError, ValidationError):
        return Memo()
    wanted = (CATALOG_VERSION, catalog_signature(catalog), str(base))
    return memo if memo.catalog and (memo.version, memo.catalog, memo.base) == wanted else Memo()


def write_memo(base: Path, catalog: Path, signature: str, months: dict[str, str], runs: int) -> None:
    """Remember a finished sync, and the signature of the catalog that it left."""
    memo = Memo(version=CATALOG_VERSION, catalog=signature, base=str(base), months=months, runs=runs)
    with contextlib.suppress(FileNotFoundError), replacing(_path(catalog)) as temporary:  # taken away: nothing is lost
        temporary.write_text(memo.model_dump_json())


def catalog_signature(catalog: Path) -> str:
    """Tells this catalog file from every other; that of no file fits none."""
    try:
        return _signature(catalog)
    except FileNotFoundError:
        return ""


def month_signatures(base: Path) -> dict[str, str]:
    """{month: signature of its directory}; changes whenever a run directory appears or goes."""
    if not base.exists():
        return {}
    return {entry.name: _signature(Path(entry.path)) for entry in os.scandir(base) if _is_month(entry)}


def _path(catalog: Path) -> Path:
    return catalog.with_name(f".{catalog.name}.memo.json")


def _signature(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _is_month(entry: os.DirEntry) -> bool:
    name = entry.name
    return len(name) == 7 and name[4] == "-" and name.replace("-", "").isdigit() and entry.is_dir(follow_symlinks=False)
