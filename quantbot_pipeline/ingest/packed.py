"""Packed files: gz, zst and zip are unpacked into a scratch folder before anything reads them, within limits.

Belongs here: how a packed file becomes plain ones, and the refusal of what unpacks to more than any table needs.
Does not: what is in the plain files. A file is known as packed by its first bytes, whatever its name.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from quantbot_pipeline.duck import first_line
from quantbot_pipeline.durable import disk_fault
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import PACKED_SUFFIXES, known_suffix

MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
# Text of candles packs 5 to 30 times; a bomb of gzip 1,000 times, one of zstd without a limit.
MAX_RATIO, FREE_BYTES = 200, 64 << 20  # plain bytes per packed byte, of what is longer than FREE_BYTES
MAX_UNPACKED = 64 << 30
MAX_MEMBERS = 10_000
PIECE = 1 << 20
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, pa.ArrowException, NotImplementedError, RuntimeError)


class Plain(NamedTuple):
    """A file that can be read: where it lies, and what a message calls it."""

    path: Path
    shown: str


def packing_of(path: Path) -> str | None:
    """Return gzip, zstd or zip by the first bytes of a file; None for a plain one."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)


@contextlib.contextmanager
def plain_files(path: Path, scratch: Path) -> Iterator[list[Plain]]:
    """Yield the plain files of a path: itself, or what it holds, unpacked below `scratch` and gone afterwards.

    Folders `key=value` and the name of the file's own folder stay part of an unpacked path, so that they still name
    token and interval. An InputError of the block that names an unpacked path names the packed file instead. Raises
    InputError for damaged files, for those that unpack to too much, and for archives without a file.
    """
    if not path.is_file():
        raise InputError(f"{path}: not a file")
    kind = packing_of(path)
    if kind is None:
        yield [Plain(path, str(path))]
        return
    places: list[Plain] = []
    budget = [min(MAX_UNPACKED, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))]
    try:
        with contextlib.ExitStack() as stack:
            try:
                for file, shown in _members(stack, path, kind, scratch, budget):
                    places.append(Plain(file, shown))
            except (*UNREADABLE, OSError) as e:
                if disk_fault(e) is not None:
                    raise
                raise InputError(
                    f"{path}: not readable as {kind}: {first_line(e)}; pack it anew or unpack it"
                ) from None
            if not places:
                raise InputError(f"{path}: no file in this archive")
            yield places
    except InputError as e:
        text = str(e)
        for place in places:
            text = text.replace(str(place.path), place.shown)
        raise InputError(text) from None


def _members(
    stack: contextlib.ExitStack, path: Path, kind: str, scratch: Path, budget: list[int]
) -> Iterator[tuple[Path, str]]:
    """Unpack each file of a packed one; yield where it lies and its name for messages."""
    here = scratch / f"unpacked-{abs(hash(path)):x}"
    # The folders that name something, and the nearest one.
    parents = [part for part in path.parent.parts[:-1] if "=" in part] + list(path.parent.parts[-1:])
    folders = [part for part in parents if part not in ("/", "..", ".")]
    if kind != "zip":
        target = here.joinpath(*folders, _inner_name(path))
        with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, kind) as source:
            _copy(path, source, stack, target, budget)
        _refuse_packed_twice(path, target, str(path))
        yield target, str(path)
        return
    archive = stack.enter_context(zipfile.ZipFile(path))
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and _is_visible(entry.filename)]
    if any(entry.filename == "[Content_Types].xml" for entry in archive.infolist()):
        raise InputError(f"{path}: an Office document; save its sheet as CSV")
    if len(entries) > MAX_MEMBERS:
        raise InputError(f"{path}: {len(entries):,} files in one archive, more than {MAX_MEMBERS:,}; split it")
    known = [entry for entry in entries if known_suffix(entry.filename)] or entries
    for number, entry in enumerate(known):
        if entry.flag_bits & 1:
            raise InputError(f"{path}: {entry.filename} is encrypted; unpack it first")
        inside = [
            part for part in PurePosixPath(entry.filename.replace("\\", "/")).parts if part not in ("/", "..", ".")
        ]
        target = here.joinpath(str(number), *folders, *inside)
        with archive.open(entry) as member:
            _copy(path, member, stack, target, budget)
        _refuse_packed_twice(path, target, f"{path}/{entry.filename}")
        yield target, f"{path}/{entry.filename}"


def _copy(
    path: Path, source: "BinaryIO | pa.NativeFile", stack: contextlib.ExitStack, target: Path, budget: list[int]
) -> None:  # type: ignore[type-arg, unused-ignore]
    """Copy a stream to a file that goes with the stack; stop when the budget of bytes is spent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stack.callback(target.unlink, missing_ok=True)
    with target.open("wb") as out:
        while piece := source.read(PIECE):
            budget[0] -= len(piece)
            if budget[0] < 0:
                raise InputError(
                    f"{path}: unpacks to far more than its {path.stat().st_size:,} bytes can be about; is it damaged? "
                    "If not, unpack it first"
                )
            out.write(piece)


def _refuse_packed_twice(path: Path, target: Path, shown: str) -> None:
    if packing_of(target) is not None:
        raise InputError(f"{shown}: packed twice; unpack {path.name} first")


def _is_visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in PurePosixPath(name).parts)


def _inner_name(path: Path) -> str:
    """The name without the suffix of the packing: `a.csv.gz` is `a.csv`."""
    return path.stem if path.suffix.lower() in PACKED_SUFFIXES else path.name
