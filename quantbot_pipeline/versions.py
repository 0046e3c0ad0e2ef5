"""Everything that this program writes, with the version of its format: the one table, and what a reader makes of a version.

Belongs here: which versions were ever released, where a file says its own, and the sentence for one that cannot be read. Does
not: how an older file is brought up; for artifacts that is `artifacts.migrations`, for the store of calls `market.calls`.
A version has three numbers. The first changes when an older reader would go wrong, the second when something was added.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from quantbot_pipeline.errors import QuantbotError
from quantbot_pipeline.version import __version__

FORMAT_KEY = b"quantbot.version"  # in the metadata of a Parquet file
WRITER_KEY = b"quantbot.written_by"

# Artifact: {version: number of its columns}, oldest first. Columns are only ever appended, so the number says which there were.
# Whoever appends columns adds a version here. An artifact without a line has had one version.
ARTIFACT_COLUMNS: dict[str, dict[str, int]] = {
    "features": {"1.0.0": 10, "1.1.0": 32},
}
FIRST = "1.0.0"


class Format(NamedTuple):
    """A file that is written: where it lies, where it says its version, and every version ever released, oldest first.

    unsaid: the version of a file that says none; None where every released program wrote one. older: what becomes of an older one.
    """

    file: str
    says: str
    versions: tuple[str, ...]
    unsaid: str | None
    older: str

    @property
    def current(self) -> str:
        """The version that this program writes."""
        return self.versions[-1]


_RUN = "runs/YYYY-MM/run_id=…/"
ARTIFACT = Format(
    f"{_RUN}*/*.parquet",
    f"`{FORMAT_KEY.decode()}` in the Parquet metadata; `artifacts.….version` of run.json",
    (FIRST,),
    FIRST,
    "brought up when it is read; columns that it lacks are null",
)
FORMATS: dict[str, Format] = {
    "manifest": Format(
        f"{_RUN}run.json",
        "`schema_version.manifest`",
        ("1.0.0", "1.1.0"),
        None,
        "read as it is; 1.0.0 lacks the versions of the artifacts",
    ),
    "calls": Format(
        "data/alerts.duckdb",
        "`version` in the table `store_meta`",
        ("1.0.0", "1.1.0", "1.2.0"),
        "1.0.0",
        "read as it is; `quantbot migrate` or the next ingest brings it up",
    ),
    "candles": Format(
        "data/candles/interval=…/month=YYYY-MM/*.parquet",
        f"`{FORMAT_KEY.decode()}` in the Parquet metadata",
        ("1.0.0",),
        "1.0.0",
        "read as it is; an ingest of its month writes it anew",
    ),
    "inputs": Format(
        "QUANTBOT_INPUTS/**/current.json",
        "`version`",
        ("1.0.0",),
        None,
        "read as it is; the files that it names are of the formats `calls` and `candles`",
    ),
    "catalog": Format(
        "data/backtest_catalog.duckdb", "`version` in the table `catalog_meta`", ("3",), None, "made anew from the runs"
    ),
    "journal": Format(
        "runs/.notes/journal.jsonl",
        "`version` in its first line",
        ("1.0.0",),
        "1.0.0",
        "read as it is",
    ),
}


def format_of(name: str) -> Format:
    """Return the line of a format; `name` is a key of FORMATS, or an artifact type."""
    return FORMATS.get(name) or ARTIFACT._replace(versions=tuple(ARTIFACT_COLUMNS.get(name, (FIRST,))))


class Version(NamedTuple):
    """A version as numbers, so that versions can be compared."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


_VERSION = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?")


def parse_version(text: str) -> Version | None:
    """Return a version such as `1.2.0`, `1.2` or `1` as numbers; None for what is none."""
    found = _VERSION.fullmatch(text)
    return Version(*(int(part or 0) for part in found.groups())) if found else None


def read_version(
    name: str, said: object, where: object, error: type[QuantbotError], written_by: object = None
) -> Version:
    """Return the version of a file that says `said` of itself; None where it says none.

    name: the format, as for `format_of`. written_by: the version of quantbot that the file names. Raises `error`, in one sentence
    that names `where`, for a newer major version, for one that was never released, and for what is no version.
    """
    if isinstance(said, str | None) and (readable := _readable(name, said)) is not None:
        return readable
    known = format_of(name)
    what = f"{where}: {name} version"
    if said is None:
        raise error(f"{what} is missing: every version of quantbot writes one, so this file is damaged or not its own")
    text = said if isinstance(said, str) else ""
    found = parse_version(text)
    if found is None:
        raise error(
            f"{what} {str(said)[:20]!r} is no version such as {known.current}: damaged, or not written by quantbot"
        )
    oldest, newest = _bounds(known)
    if found > newest:
        maker = f"quantbot {str(written_by)[:20]}" if isinstance(written_by, str) and written_by else "a newer quantbot"
        raise error(
            f"{what} {text[:20]}, written by {maker}, is newer than this quantbot {__version__} reads "
            f"(up to {newest.major}.x): upgrade quantbot to {'that version' if written_by else 'the version that wrote it'} or a later one"
        )
    raise error(f"{what} {text} was never released (the oldest is {oldest}): damaged, or not written by quantbot")


@functools.lru_cache(maxsize=1024)  # of ten thousand manifests a sync asks for each artifact
def _readable(name: str, said: str | None) -> Version | None:
    """Return the version that a file says, or that it has where it says none; None for one that is refused."""
    known = format_of(name)
    found = parse_version(known.unsaid or "" if said is None else said)
    oldest, newest = _bounds(known)
    return found if found is not None and oldest.major <= found.major <= newest.major else None


def _bounds(known: Format) -> tuple[Version, Version]:
    """Return the first and the last version of a line of the table."""
    oldest, newest = parse_version(known.versions[0]), parse_version(known.current)
    if oldest is None or newest is None:
        raise ValueError(f"{known.file}: a version has three numbers, such as 1.0.0: {known.versions}")
    return oldest, newest


def is_older(name: str, found: Version) -> bool:
    """Whether a file of this version lacks what this program writes."""
    return found < _bounds(format_of(name))[1]


def columns_of(artifact_type: str, version: Version, current: Sequence[str]) -> Sequence[str] | None:
    """Return the columns that an artifact had in a version, given those of today; None for a version that this program does not know."""
    counts: Mapping[str, int] = ARTIFACT_COLUMNS.get(artifact_type, {FIRST: len(current)})
    known = {parse_version(text): count for text, count in counts.items()}
    return current[: known[version]] if version in known else None


def parquet_metadata(name: str) -> dict[bytes, bytes]:
    """Return what a Parquet file of a format says of itself in its metadata."""
    return {FORMAT_KEY: format_of(name).current.encode(), WRITER_KEY: __version__.encode()}
