"""Input bombs at full size: each is refused in one line, in a process that is watched: 512 MB of memory and a minute at most."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline_tests.support.builders import solana_address
from quantbot_pipeline_tests.support.labs import QUANTBOT, environment
from quantbot_pipeline_tests.torture.conftest import Tally

MEMORY_MB, SECONDS = 512, 60
T = 1_704_067_200_000
HEAD = b"call_id,mint,caller_name,alert_ts_ms\n"
MEGABYTE = b"x" * (1 << 20)


def gigabyte(path: Path, before: bytes = b"", piece: bytes = MEGABYTE) -> None:
    with path.open("wb") as f:
        f.write(before)
        for _ in range((1 << 30) // len(piece)):
            f.write(piece)


def wide(path: Path, rows: int) -> None:
    line = b"m,a,1704067200000" + b",1" * 100_000 + b"\n"
    path.write_bytes(
        b"mint,caller_name,alert_ts_ms," + b",".join(b"c%d" % i for i in range(100_000)) + b"\n" + line * rows
    )


def alike(rows: int) -> pa.Table:
    same = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["x"])
    return pa.table({"mint": same, "caller_name": same, "alert_ts_ms": np.full(rows, T)})


def many_rows(path: Path) -> None:
    part = alike(20_000_000)
    with pq.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(part, row_group_size=part.num_rows)


def huge_cell(path: Path) -> None:
    mint = pa.array(["x" * (1 << 30)], pa.large_string())
    table = pa.table({"mint": mint, "caller_name": ["a"], "alert_ts_ms": [T]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def huge_page(path: Path) -> None:
    """A page of 1.5 GB among so many small values that their mean is nothing special."""
    values = ["x" * (3 << 19)] * 1_000
    table = pa.table({"mint": values, "caller_name": values, "alert_ts_ms": [T] * 1_000})
    pq.write_table(
        table, path, compression="zstd", use_dictionary=False, data_page_size=1 << 31 - 1, write_statistics=False
    )


def spelled_out(path: Path) -> None:
    rows = 10_000_000
    table = alike(rows).set_column(0, "mint", repeated(rows, "x" * (1 << 20)))
    pq.write_table(
        table, path, compression="zstd", row_group_size=rows, dictionary_pagesize_limit=1 << 24, write_statistics=False
    )


def feather(path: Path, mint: pa.Array, times: np.ndarray | None = None, batch: int | None = None) -> None:
    rows = len(mint)
    table = {"mint": mint, "ts_ms": T + 300_000 * np.arange(rows) if times is None else times}
    table |= dict.fromkeys(("open", "high", "low", "close", "volume"), np.ones(rows))
    pyarrow.feather.write_feather(pa.table(table), path, compression="zstd", chunksize=batch or rows)


def repeated(rows: int, text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [text])


def keys(path: Path) -> None:
    row = json.dumps(dict.fromkeys((f"k{i}" for i in range(100_000)), 1) | {"mint": "m"}) + "\n"
    path.write_text(row * 20)


BOMBS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "1 GB in one line": ("x.csv", gigabyte),
    "1 GB in the second line": ("x.csv", lambda p: gigabyte(p, HEAD)),
    "1 GB behind an open quote": ("x.csv", lambda p: gigabyte(p, HEAD + b'1,"', b"x" * 1023 + b"\n")),
    "1 GB of commas": ("x.csv", lambda p: gigabyte(p, HEAD, b"," * (1 << 20))),
    "1 GB of zeros": ("x.csv", lambda p: gigabyte(p, b"", bytes(1 << 20))),
    "100,000 columns": ("x.csv", lambda p: wide(p, 50)),
    "1 GB JSON text": ("x.jsonl", lambda p: gigabyte(p, b'{"mint":"')),
    "1 GB of open brackets": ("x.jsonl", lambda p: gigabyte(p, b"", b"[" * (1 << 20))),
    "JSON with 100,000 keys": ("x.jsonl", keys),
    "a token that is nested a million deep": (
        "x.jsonl", lambda p: p.write_text('{"caller":"a","alert_ts":1704067200000,"mint":' + "[" * 10**6 + "]" * 10**6 + "}"),
    ),
    "a cell of 1 GB in 33 kB of Parquet": ("x.parquet", huge_cell),
    "a page of 1.5 GB": ("x.parquet", huge_page),
    "200 million rows in 2 MB": ("x.parquet", many_rows),
    "10 TB of names out of a Parquet dictionary": ("x.parquet", spelled_out),
    "a cell of 1 GB in 34 kB of Feather": ("x.feather", lambda p: feather(p, pa.array(["x" * (1 << 30)]))),
    "a Feather dictionary of 1 GB": ("x.feather", lambda p: feather(p, repeated(9, "x" * (1 << 30)))),
    "60 GB of names out of a Feather dictionary": ("x.feather", lambda p: feather(p, repeated(60_000, "x" * (1 << 20)))),
    "30 million rows of Feather in one batch": ("x.feather", lambda p: feather(p, repeated(30_000_000, "x"))),
    "a 1 GB message": ("result.json", lambda p: gigabyte(p, b'{"name":"x","messages":["')),
    "1 GB of empty messages": ("result.json", lambda p: gigabyte(p, b'{"name":"x","messages":[', b"{}," * (1 << 18))),
    "30 million messages without a text": (
        "result.json", lambda p: p.write_bytes(b'{"name":"x","messages":[' + b'{"id":1},' * 30_000_000 + b'{"id":1}]}'),
    ),
    "an account of 1 GB of brackets": ("result.json", lambda p: gigabyte(p, b'{"about":"","chats":{"list":', b"[" * (1 << 20))),
    "1 GB of chats in chats": ("result.json", lambda p: gigabyte(p, b"", b'{"about":"","chats":{"list":[' * 30_000)),
    "1 GB of a Discord message": ("discord.json", lambda p: gigabyte(p, b'{"guild":{},"channel":{},"messages":["')),
    "1 GB of a page": ("messages.html", lambda p: gigabyte(p, b'<html><div class="page_wrap">', b"<a" * (1 << 19))),
    "60 MB of a tag": ("messages.html", lambda p: p.write_bytes(b'<html><div class="page_wrap">' + b"<a" * (30 << 20))),
    "60 MB of open tags": ("messages.html", lambda p: p.write_bytes(b'<html><div class="page_wrap">' + b"<b>" * (20 << 20))),
    "60 MB before a message": ("messages.html", lambda p: p.write_bytes(b'<html><div class="page_wrap">' + b"< " * (30 << 20))),
    "1 GB of brackets as an export": ("result.json", lambda p: gigabyte(p, b'{"name":"x","messages":[', b"[" * (1 << 20))),
}  # fmt: skip  # a table: what belongs together stands on one line


# A process of its own that starts the command and nothing else: a child begins with the peak of whoever started it.
WATCH = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps([done.returncode, done.stdout, done.stderr, peak, used.ru_utime + used.ru_stime]))
"""


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "in"
    for path in (tmp_path / "in").iterdir():
        path.unlink()  # pytest keeps the folders of the last runs


def watch_ingest(folder: Path, name: str, *options: str, **more: str) -> tuple[int, str, str, float, float]:
    """Ingest a file into the home around its folder: exit status, output, errors, peak memory in MB, CPU seconds."""
    what = {".feather": ["candles", "--interval", "5m"]}
    arguments = ["ingest", *what.get(Path(name).suffix, ["calls"]), *options, str(folder / name)]
    watched = subprocess.run(
        [sys.executable, "-c", WATCH, QUANTBOT, *arguments], env=environment(folder.parent, **more), capture_output=True,
        text=True, timeout=10 * SECONDS, check=False,
    )  # fmt: skip  # a table: what belongs together stands on one line
    status, out, err, peak, seconds = json.loads(watched.stdout)
    return status, out, err, peak, seconds


@pytest.mark.torture
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(bomb: Path, kind: str, tally: Tally) -> None:
    name, make = BOMBS[kind]
    bomb.mkdir()
    make(bomb / name)
    status, out, err, peak, seconds = watch_ingest(bomb, name)
    sound = status == 2 and peak <= MEMORY_MB and seconds <= SECONDS
    tally(f"bomb: {kind}", tried=1, detected=int(sound), lost=int(not sound))
    assert peak <= MEMORY_MB, err
    assert seconds <= SECONDS
    assert (status, out) == (2, ""), err
    assert err.startswith(f"quantbot: {bomb / name}: "), err
    assert err.count("\n") == 1
    assert not list((bomb.parent / "data").glob("*.duckdb"))
    assert not list((bomb.parent / "data").glob("candles/interval=*"))


@pytest.mark.torture
def test_two_million_messages_are_no_bomb(bomb: Path, tally: Tally) -> None:
    """More than the longest channels have, one in five with a token: 0.5 GB."""
    bomb.mkdir()
    calling = json.dumps([{"type": "code", "text": solana_address(1)}, " now " * 20])
    with (bomb / "result.json").open("w") as f:
        f.write('{"name": "x", "id": 7, "messages": [')
        for i in range(2_000_000):
            text = json.dumps("good morning " * 10) if i % 5 else calling
            f.write(
                f'{"," if i else ""}\n  {{"id": {i}, "type": "message", "date": "2024-01-01T00:00:00", '
                f'"date_unixtime": "{T // 1000 + i}", "from": "x", "text": {text}, "text_entities": []}}'
            )
        f.write("]}")
    status, out, err, peak, seconds = watch_ingest(
        bomb, "result.json", "--output", "json", "--first-mention", "0", QUANTBOT_MEMORY_LIMIT="128MB"
    )
    tally("a long export is ingested", tried=1, detected=0, lost=int(status != 0 or peak > MEMORY_MB))
    assert status == 0, err
    assert json.loads(out)["inserted"] == 400_000
    assert peak <= MEMORY_MB
    assert seconds <= SECONDS


@pytest.mark.torture
def test_a_large_feather_of_candles_is_no_bomb(bomb: Path, tally: Tally) -> None:
    """A year of sixty tokens: 0.5 GB of values, as pandas writes them."""
    bomb.mkdir()
    times = T + 300_000 * np.arange(100_000)
    mint = np.repeat([f"{'m' * 40}{i}" for i in range(60)], len(times))
    feather(bomb / "x.feather", pa.array(mint), np.tile(times, 60), batch=65_536)
    status, _, err, peak, _ = watch_ingest(bomb, "x.feather", QUANTBOT_MEMORY_LIMIT="128MB")
    tally("a large Feather is ingested", tried=1, detected=0, lost=int(status != 0 or peak > MEMORY_MB))
    assert status == 0, err
    assert peak <= MEMORY_MB
