"""Packed files: what is in them is found, what unpacks to too much or is damaged is refused, and nothing is left behind."""

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.files import hive_value
from quantbot_pipeline.ingest.packed import FREE_BYTES, plain_files

TEXT = b"mint,ts_ms\nm,1\n"


def zstd_stream(path: Path, piece: bytes, times: int) -> None:
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as out:
        for _ in range(times):
            out.write(piece)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.zip"])
def test_a_file_is_unpacked_and_keeps_the_names_of_its_folders(tmp_path: Path, name: str) -> None:
    path = tmp_path / "interval=5m" / "mint=M" / name
    path.parent.mkdir(parents=True)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", TEXT)
            archive.writestr("__MACOSX/._a.csv", b"x")
    elif name.endswith(".zst"):
        zstd_stream(path, TEXT, 1)
    else:
        path.write_bytes(gzip.compress(TEXT) if name.endswith(".gz") else TEXT)
    scratch = tmp_path / "scratch"
    with plain_files(path, scratch) as (plain,):
        assert plain.path.read_bytes() == TEXT and plain.path.name == "a.csv"
        assert (hive_value(plain.path, "mint"), hive_value(plain.path, "interval")) == ("M", "5m")
        assert plain.shown == (f"{path}/a.csv" if name.endswith(".zip") else str(path))
    assert path.exists() and not [p for p in scratch.rglob("*") if p.is_file()]


def test_an_error_names_the_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(TEXT))
    with pytest.raises(InputError) as caught, plain_files(path, tmp_path / "s") as (plain,):
        raise InputError(f"{plain.path}: wrong")
    assert str(caught.value) == f"{path}: wrong"


def archive_of(path: Path, *members: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


ZEROS = bytes(1 << 20)
TOO_MANY = (FREE_BYTES >> 20) + 1
REFUSED = {
    "gzip bomb": (lambda p: p.write_bytes(gzip.compress(ZEROS * TOO_MANY)), "unpacks to far more than its"),
    "zstd bomb": (lambda p: zstd_stream(p, ZEROS, TOO_MANY), "unpacks to far more than its"),
    "zip bomb": (lambda p: archive_of(p, ("a.csv", ZEROS * TOO_MANY)), "unpacks to far more than its"),
    "zip bomb of many": (
        lambda p: archive_of(p, *((f"{i}.csv", ZEROS) for i in range(TOO_MANY))), "unpacks to far more than its",
    ),
    "many members": (lambda p: archive_of(p, *((f"{i}.csv", b"") for i in range(10_001))), "10,001 files in one archive"),
    "cut gzip": (lambda p: p.write_bytes(gzip.compress(TEXT * 99)[:-20]), "not readable as gzip"),
    "cut zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50)), "not readable as zip"),
    "damaged zstd": (lambda p: p.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50)), "not readable as zstd"),
    "empty zip": (lambda p: archive_of(p), "no file in this archive"),
    "packed twice": (lambda p: archive_of(p, ("a.csv.gz", gzip.compress(TEXT))), r"a\.csv\.gz: packed twice; unpack"),
    "workbook": (lambda p: archive_of(p, ("[Content_Types].xml", b"x"), ("xl/a.xml", b"x")), "save its sheet as CSV"),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_unpacked_is_refused_in_one_line(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "a.bin"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as caught, plain_files(path, tmp_path / "s"):
        pass
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "s").rglob("*") if p.is_file()]


def test_a_member_cannot_leave_the_scratch_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    archive_of(path, ("../../evil.csv", TEXT), ("/abs/b.csv", TEXT), ("mint=X/c.csv", TEXT))
    scratch = tmp_path / "deep" / "s"
    with plain_files(path, scratch) as plain:
        assert all(scratch in p.path.resolve().parents for p in plain) and len(plain) == 3
        assert [hive_value(p.path, "mint") for p in plain] == [None, None, "X"]
