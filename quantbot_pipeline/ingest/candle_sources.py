"""Which files an ingest of candles reads: of a folder those of its interval and format; what is left out is counted."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import hive_value, is_archive, known_suffix, readable_file, walk
from quantbot_pipeline.ingest.names import said_by_name
from quantbot_pipeline.vocabulary import INTERVALS_MS

FORMATS = ("parquet", "csv", "feather", "jsonl", "json", "hdf5")


class Sources(NamedTuple):
    """The files to read, in byte order of their paths, and what of the folders is left out, by reason."""

    files: list[Path]
    left_out: dict[str, int]


def candle_sources(paths: Sequence[Path], interval: str, fmt: str) -> Sources:
    """Find the files of candles under `paths`.

    A folder is searched: files of another format, of another interval (by a level `interval=` or by their name) and files
    that hold no candles of trades are left out. A file that was named is read, or refused. Raises InputError for paths that
    do not exist or cannot be read, and where nothing is left.
    """
    left_out: Counter[str] = Counter()
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(_of_folder(path, interval, fmt, left_out))
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        elif other := said_by_name(path).other:
            left_out[other] += 1
        else:
            found.add(path)
    for path in found:
        readable_file(path)
    if not found:
        _refuse_the_only_interval(paths, interval)
        reasons = ", ".join(f"{reason} {n}" for reason, n in left_out.items())
        raise InputError(
            f"{', '.join(map(str, paths[:3]))}: no file of {interval} candles is left (left out: {reasons}); "
            f"check --interval {interval} and --format"
        )
    return Sources(sorted(found, key=lambda p: os.fsencode(p)), dict(left_out))


def _of_folder(folder: Path, interval: str, fmt: str, left_out: Counter[str]) -> list[Path]:
    files = list(walk(folder))
    wanted = set(FORMATS) if fmt == "auto" else {fmt}
    inside = [p for p in files if known_suffix(p.name) in wanted or is_archive(p.name)]
    if not inside and fmt != "auto":  # data.txt, since --format says what it is
        inside = [p for p in files if not known_suffix(p.name)]
    if not inside:
        raise InputError(
            f"{folder}: no file of candles in this folder; files end in .csv, .json, .jsonl, .parquet, .feather or .h5, or in "
            ".gz, .zst or .zip behind it"
        )
    if len(files) > len(inside):
        left_out["other format"] += len(files) - len(inside)
    # A level above the folder was chosen by whoever named the folder, so that it is judged, not passed over.
    own = hive_value(folder / "x", "interval")
    kept = []
    for path in inside:
        said = said_by_name(path)
        level = hive_value(path, "interval")
        if said.other:
            left_out[said.other] += 1
        elif (level is not None and level not in (interval, own)) or (said.step is not None and said.step != interval):
            left_out["other interval"] += 1
        else:
            kept.append(path)
    return kept


def _refuse_the_only_interval(paths: Sequence[Path], interval: str) -> None:
    """Say which interval it is where all files of the folders are of one other interval."""
    files = sorted(p for path in paths if path.is_dir() for p in walk(path) if known_suffix(p.name))
    for path in files:
        if said_by_name(path).other is None:
            refuse_stated(path, str(path), interval)


def refuse_stated(path: Path, shown: str, interval: str) -> None:
    """Refuse a file whose folder or name states another interval than the one asked for."""
    declared = hive_value(path, "interval")
    if declared is not None and declared != interval:
        raise InputError(f"{shown}: the folder says interval={declared}, not {interval}; pass --interval {declared}")
    step = said_by_name(path).step
    if step is not None and step != interval:
        known = f"pass --interval {step}" if step in INTERVALS_MS else f"{step} is not supported; take the file out"
        raise InputError(f"{shown}: the name says {step}, not {interval}; {known}, or rename the file")
