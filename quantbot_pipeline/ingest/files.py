"""Which files an ingest reads, and in which order; what their folders say of them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote

from quantbot_pipeline.errors import InputError

SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".duckdb": "duckdb",
    ".json": "json",
    ".html": "telegram-html",
    ".htm": "telegram-html",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
PACKED_SUFFIXES = (".gz", ".zst", ".zstd", ".zip")


def known_suffix(name: str) -> str:
    """Return the format that a file's name stands for, that of a packed one included (`a.csv.gz` is csv); else ''."""
    path = PurePath(name)
    if path.suffix.lower() in PACKED_SUFFIXES:
        path = PurePath(path.stem)
    return SUFFIXES.get(path.suffix.lower(), "")


def is_archive(name: str) -> bool:
    """Whether a file's name says that it is packed and nothing of what is in it: `a.zip`."""
    path = PurePath(name)
    return path.suffix.lower() == ".zip" or (path.suffix.lower() in PACKED_SUFFIXES and not PurePath(path.stem).suffix)


def expand_paths(paths: Sequence[Path], formats: Iterable[str]) -> list[Path]:
    """All input files under `paths`, in byte order of their path; the order decides which duplicate wins.

    Raises InputError for a path that does not exist, cannot be read, or a folder without a known file.
    """
    wanted = set(formats)
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = [p for p in walk(path) if known_suffix(p.name) in wanted or is_archive(p.name)]
            if not inside:
                endings = ", ".join(sorted(suffix for suffix, fmt in SUFFIXES.items() if fmt in wanted))
                raise InputError(f"{path}: no file ending in {endings} in this folder")
            found.update(inside)
        elif path.exists():
            found.add(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    for path in found:
        readable_file(path)
    return sorted(found, key=lambda p: os.fsencode(p))


def readable_file(path: Path) -> None:
    """Raise InputError for a file that may not be read."""
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read; check its owner and mode")


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; names that begin with `.` or `_` are nobody's data."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}; check its owner and mode")

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names if not name.startswith((".", "_")))


def hive_value(path: Path, key: str) -> str | None:
    """The value of `key=value` in the folders of `path`, decoded; None if there is none."""
    for part in reversed(path.parent.parts):
        if part.startswith(key + "="):
            return unquote(part[len(key) + 1 :])
    return None
