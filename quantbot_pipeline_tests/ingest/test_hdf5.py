"""HDF5 files as pandas and freqtrade write them: right columns, right times, and nothing in them is run."""

import pickle
import sys
from pathlib import Path
from typing import Literal

import h5py
import hdf5plugin  # noqa: F401  (registers blosc)
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.ingest.report import IngestReport
from quantbot_pipeline.market.candle_files import CandleStore
from quantbot_pipeline_tests.support.builders import Row, candles, ms

Unit = Literal["ns", "us", "ms"]
JAN_1 = ms("2025-01-01")
N = 300
KEY = "BTC_USDT/ohlcv/tf_5m"


def market() -> list[Row]:
    return candles("BTC_USDT", JAN_1, N)


def frame(unit: Unit = "ns") -> pd.DataFrame:
    """As freqtrade has it: no two columns are alike, so that columns that change places change prices."""
    rows = market()
    times = pd.to_datetime([row["ts_ms"] for row in rows], unit="ms", utc=True).as_unit(unit)
    return pd.DataFrame({"date": times} | {c: [r[c] for r in rows] for c in ("open", "high", "low", "close", "volume")})


def freqtrade(path: Path, data: pd.DataFrame, key: str = KEY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_hdf(path, key=key, mode="a", complevel=9, complib="blosc", format="table", data_columns=["date"])
    return path


def ingest(tmp_path: Path, *sources: Path) -> IngestReport:
    return ingest_candles(list(sources), CandleStore(tmp_path / "store", memory_limit="256MB"), "5m")


def stored(tmp_path: Path) -> list[Row]:
    files = sorted((tmp_path / "store" / "interval=5m").glob("month=*/candles.parquet"))
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_a_file_of_freqtrade_is_read_as_it_is(tmp_path: Path, unit: Unit) -> None:
    report = ingest(tmp_path, freqtrade(tmp_path / "in" / "BTC_USDT-5m.h5", frame(unit)).parent)
    assert (report.inserted, report.rejected) == (N, {})
    assert stored(tmp_path) == market()


def test_a_frame_with_its_times_as_index_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "BTC_USDT-5m.h5"
    frame().set_index("date").to_hdf(path, key="x", format="table")
    assert ingest(tmp_path, path).inserted == N
    assert stored(tmp_path) == market()


def test_more_than_one_table_and_none_are_refused(tmp_path: Path) -> None:
    path = freqtrade(freqtrade(tmp_path / "BTC_USDT-5m.h5", frame()), frame(), "ETH_USDT/ohlcv/tf_5m")
    with pytest.raises(
        InputError, match=r"holds the tables BTC_USDT/ohlcv/tf_5m, ETH_USDT/ohlcv/tf_5m; write one table"
    ):
        ingest(tmp_path, path)
    fixed = tmp_path / "fixed-5m.h5"
    frame().to_hdf(fixed, key="x")
    with pytest.raises(
        InputError, match=r"fixed-5m\.h5: no table that pandas wrote; write it with to_hdf\(…, format='table'\)"
    ):
        ingest(tmp_path, fixed)


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def test_a_pickle_in_a_file_is_never_run(tmp_path: Path) -> None:
    path, mark = freqtrade(tmp_path / "BTC_USDT-5m.h5", frame()), tmp_path / "harm"
    with h5py.File(path, "a") as file:
        harm = pickle.dumps(Harm(mark), protocol=0)
        for name in ("values_block_0_kind", "date_kind", "index_kind"):
            file[KEY]["table"].attrs[name] = np.bytes_(harm)
        file[KEY].attrs["info"] = np.bytes_(harm)
    pickle.loads(harm)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(
        InputError, match="the names of its columns in values_block_0 cannot be read; save it as feather"
    ):
        ingest(tmp_path, path)
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 8, 1000, 20_000])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, kept: int) -> None:
    path = freqtrade(tmp_path / "BTC_USDT-5m.h5", frame())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"BTC_USDT-5m\.h5: "):
        ingest(tmp_path, path)
    assert not (tmp_path / "store").exists() or stored(tmp_path) == []


def test_bombs_are_refused(tmp_path: Path) -> None:
    """A few kilobytes that claim gigabytes: wide rows, and a piece that unfolds to more than any table has."""
    wide = np.dtype([("date", "<i8"), ("name", "S100000")])
    narrow = np.dtype([("date", "<i8"), ("close", "<f8")])
    for name, kind, rows, chunk in (("wide", wide, 60_000, 10), ("deep", narrow, 20_000_000, 10_000_000)):
        path = tmp_path / f"{name}-5m.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x/table", shape=(rows,), dtype=kind, chunks=(chunk,), compression="gzip")
        with pytest.raises(
            InputError, match=rf"{name}-5m\.h5: (a row of the table takes|the table is stored in pieces)"
        ):
            ingest(tmp_path, path)
    dense = tmp_path / "dense-5m.h5"
    with h5py.File(dense, "w") as file:
        file.create_dataset("x/table", shape=(1 << 40,), dtype=narrow, chunks=(65_536,), compression="gzip")
    with pytest.raises(InputError, match=r"dense-5m\.h5: claims 1,099,511,627,776 rows in"):
        ingest(tmp_path, dense)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = freqtrade(tmp_path / "BTC_USDT-5m.h5", frame())
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(InputError, match=r"HDF5 needs the extra: pip install 'quantbot-pipeline\[hdf5\]'"):
        ingest(tmp_path, path)
