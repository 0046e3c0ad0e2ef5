"""Tables of calls as people keep them: their names of columns, spellings of chains and tokens, times, and what is rejected."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.chains import SPELLINGS
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import call, ms, solana_address, write_csv, write_jsonl, write_parquet

T = ms("2025-07-18T14:50:51")
MINT = solana_address(1)
EVM = "0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B"


@pytest.fixture
def store(tmp_path: Path) -> CallStore:
    return CallStore(tmp_path / "data" / "alerts.duckdb")


def rows_of(store: CallStore, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(store.path), read_only=True) as con:
        return con.execute(sql).fetchall()


@pytest.mark.parametrize("mint", ["mint", "mint_b58", "tokenAddress", "contract", "ca", "CA"])
@pytest.mark.parametrize("caller", ["caller", "sender"])
@pytest.mark.parametrize("time", ["call_time", "timestamp", "created_at", "date"])
def test_columns_may_have_the_names_that_callers_give_them(
    tmp_path: Path, store: CallStore, mint: str, caller: str, time: str
) -> None:
    rows = [
        {
            mint: MINT,
            caller: "Ann",
            time: "2025-07-18T14:50:51Z",
            "text": "ape",
            "message": f"other {solana_address(2)}",
        }
    ]
    assert ingest_calls([write_csv(tmp_path / "c.csv", rows)], store).inserted == 1
    assert rows_of(store, "SELECT mint, caller_name, alert_ts_ms FROM alerts") == [(MINT, "Ann", T)]


def test_all_missing_columns_are_named_at_once(tmp_path: Path, store: CallStore) -> None:
    with pytest.raises(
        InputError,
        match=r"c\.csv: missing columns mint or mint_b58 .*, caller_name or caller .*, alert_ts_ms or .* \(columns found: a, b\); .*--map mint=COLUMN",
    ):
        ingest_calls([write_csv(tmp_path / "c.csv", [{"a": 1, "b": 2}])], store)


def test_json_arrays_of_records_are_read(tmp_path: Path, store: CallStore) -> None:
    rows = [{"caller_name": "A", "mint": f"m{i}", "alert_ts_ms": T + i} for i in range(50)]
    for indent, start in ((None, ""), (1, "\n \ufeff"[:2]), (None, "\ufeff")):
        (tmp_path / "calls.json").write_text(start + json.dumps(rows, indent=indent), encoding="utf-8")
        ingest_calls([tmp_path / "calls.json"], store)
    assert rows_of(store, "SELECT mint FROM alerts ORDER BY alert_ts_ms") == [(f"m{i}",) for i in range(50)]
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    assert ingest_calls([tmp_path / "lines.json"], store).unchanged == 50
    (tmp_path / "array.jsonl").write_text(json.dumps(rows))
    assert ingest_calls([tmp_path / "array.jsonl"], store, fmt="jsonl").unchanged == 50


# --- one call is one call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chain", "spellings"), SPELLINGS.items())
@pytest.mark.parametrize("apart", [False, True], ids=["one file", "a file each"])
def test_a_call_is_one_however_its_chain_is_spelled(
    tmp_path: Path, store: CallStore, chain: str, spellings: tuple[str, ...], apart: bool
) -> None:
    written = [*spellings, spellings[0].upper(), spellings[-1].title(), ""]
    rows = [call(MINT, T, chain=word) | {"bot": word} for word in written]
    files = [[row] for row in rows] if apart else [rows]
    reports = [ingest_calls([write_csv(tmp_path / f"{n}.csv", some)], store) for n, some in enumerate(files)]
    assert sum(report.inserted for report in reports) == 1
    assert sum(report.unchanged + report.superseded for report in reports) == len(rows) - 1
    assert rows_of(store, "SELECT chain FROM alerts") == [(chain,)]


def test_an_evm_token_is_one_however_it_is_spelled(tmp_path: Path, store: CallStore) -> None:
    rows = [call(mint, T) for mint in (EVM, EVM.lower(), "0x" + EVM[2:].upper())] + [call(EVM + "0", T), call(MINT, T)]
    report = ingest_calls([write_csv(tmp_path / "c.csv", rows)], store)
    assert (report.inserted, report.unchanged) == (3, 2)
    assert {m for (m,) in rows_of(store, "SELECT mint FROM alerts")} == {EVM.lower(), EVM + "0", MINT}


OLDER = """
CREATE TABLE alerts (
    call_id VARCHAR PRIMARY KEY, mint VARCHAR NOT NULL, caller_name VARCHAR NOT NULL, chain VARCHAR NOT NULL,
    alert_ts_ms BIGINT NOT NULL, created_at VARCHAR NOT NULL, source VARCHAR, ingested_at TIMESTAMP NOT NULL);
CREATE TABLE rejected_alerts (
    call_id VARCHAR, mint VARCHAR, caller_name VARCHAR, chain VARCHAR, alert_ts_ms BIGINT, reason VARCHAR NOT NULL,
    nth BIGINT NOT NULL, source VARCHAR);
INSERT INTO alerts SELECT coalesce(id, substr(sha256(concat(strlen(caller), ':', caller, strlen(mint), ':', mint, strlen(chain), ':', chain, ts)), 1, 16)),
    mint, caller, chain, ts, 'x', 'old', now()::TIMESTAMP
FROM (VALUES (NULL, '{mint}', 'alice', 'Solana', {t}), (NULL, '{evm}', 'alice', 'ETH', {t}),
             ('telegram:8:1:{evm}', '{evm}', 'Chan', 'evm', {t}), ('own', '{mint}', 'bob', '', {t})) v(id, mint, caller, chain, ts);
"""


def test_a_store_of_an_earlier_version_goes_on(tmp_path: Path, store: CallStore) -> None:
    store.path.parent.mkdir()
    with duckdb.connect(str(store.path)) as con:
        con.execute(OLDER.format(mint=MINT, evm=EVM, t=T))
        before = con.execute("FROM alerts ORDER BY ALL").fetchall()
    rows = [
        call(MINT, T, chain="Solana"),
        call(MINT, T, chain="sol"),
        call(EVM, T, chain="ETH"),
        call(EVM.lower(), T, chain=""),
    ]
    report = ingest_calls([write_csv(tmp_path / "c.csv", rows)], store)
    assert (report.inserted, report.unchanged + report.superseded) == (0, 4), "ids that had the chain in them are known"
    messages = [{"id": 1, "date_unixtime": str(T // 1000), "text": EVM}]
    (tmp_path / "result.json").write_text(json.dumps({"name": "Chan", "id": 8, "messages": messages}))
    assert ingest_calls([tmp_path / "result.json"], store).inserted == 0
    added = "source_kind, edited_at, liquidity_usd"
    assert rows_of(store, f"SELECT * EXCLUDE ({added}) FROM alerts ORDER BY ALL") == before
    # Calls whose stored chain is spelled otherwise are no sighting: they stay those of before.
    assert rows_of(store, "SELECT DISTINCT first_ingest FROM call_sightings ORDER BY 1") == [(0,), (1,)]
    other = [call(MINT, T, "bob"), call(MINT, T, "bob") | {"alert_ts_ms": None}]
    report = ingest_calls([write_jsonl(tmp_path / "d.jsonl", other)], store)
    assert (report.inserted, report.rejected) == (1, {"alert_ts_ms": 1})
    assert len(rows_of(store, "SELECT source_kind, edited_at FROM alerts")) == len(before) + 1
    assert read_calls(store, 0, 1 << 60).calls.num_rows == len(before) + 1


# --- liquidity ---------------------------------------------------------------------------------------------------------


def test_the_liquidity_of_a_call_has_many_names_and_is_optional(tmp_path: Path, store: CallStore) -> None:
    names = ("liquidity_usd", "Liquidity", "liquidityUsd", "liq", "pool_liquidity")
    for i, name in enumerate(names):
        ingest_calls([write_jsonl(tmp_path / f"{i}.jsonl", [call(MINT, T + i) | {name: 1000.5 + i}])], store)
    ingest_calls([write_csv(tmp_path / "none.csv", [call(MINT, T + 9)])], store)
    read = read_calls(store, 0, 1 << 60)
    assert [None if v != v else v for v in read.liquidity.tolist()] == [1000.5, 1001.5, 1002.5, 1003.5, 1004.5, None]
    assert "liquidity_usd" not in read.calls.column_names
    frame = store.frame()
    assert frame["liquidity_usd"].isna().tolist() == [False] * 5 + [True]


def test_what_is_no_amount_is_empty_and_counted(tmp_path: Path, store: CallStore) -> None:
    cells = ["0", "12.5", "-1", "inf", "nan", "", "N/A", "a lot", "1e400", "1,234"]
    rows = [call(MINT, T + i) | {"liq": cell} for i, cell in enumerate(cells)]
    report = ingest_calls([write_csv(tmp_path / "c.csv", rows)], store)
    assert (report.inserted, report.rejected, report.no_liquidity) == (len(cells), {}, 5)
    assert "c.csv: row 3: liquidity_usd '-1' is no amount of USD; it is left empty in 5 calls" in report.notes[0]
    assert rows_of(store, "SELECT liquidity_usd FROM alerts WHERE liquidity_usd IS NOT NULL ORDER BY 1") == [
        (0.0,),
        (12.5,),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_an_object_below_the_name_of_the_liquidity_refuses_no_file(
    tmp_path: Path, store: CallStore, suffix: str
) -> None:
    rows = [call(MINT, T) | {"liquidity": {"usd": 5, "base": 7}}, call(MINT, T + 1) | {"liquidity": None}]
    path = tmp_path / f"c.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps({"calls": rows}))
    elif suffix == "jsonl":
        write_jsonl(path, rows)
    else:
        write_parquet(path, rows)
    assert ingest_calls([path], store).inserted == 2
    assert rows_of(store, "SELECT DISTINCT liquidity_usd FROM alerts") == [(None,)]


def test_a_stored_call_learns_its_liquidity_once(tmp_path: Path, store: CallStore) -> None:
    plain = [call(MINT, T, call_id="a"), call(MINT, T + 1, call_id="b")]
    ingest_calls([write_csv(tmp_path / "plain.csv", plain)], store)
    with duckdb.connect(str(store.path)) as con:  # as an earlier version made it
        con.execute("ALTER TABLE alerts DROP liquidity_usd")
    assert all(v != v for v in read_calls(store, 0, 1 << 60).liquidity)
    before = read_calls(store, 0, 1 << 60).calls
    told = [plain[0] | {"liq": 7}, plain[0] | {"liq": 8}, plain[1] | {"mint": "other", "liq": 9}]
    path = write_csv(tmp_path / "told.csv", told)
    report = ingest_calls([path], store)
    assert (report.inserted, report.updated, report.unchanged, report.superseded) == (0, 1, 1, 1)
    assert report.months == ["2025-07"]
    again = ingest_calls([path], store)
    assert (again.updated, again.unchanged, again.superseded, again.months) == (0, 2, 1, [])
    assert rows_of(store, "SELECT call_id, liquidity_usd FROM alerts ORDER BY 1") == [("a", 7.0), ("b", None)]
    assert read_calls(store, 0, 1 << 60).calls.equals(before)


def test_a_new_call_takes_the_first_amount_of_its_rows(tmp_path: Path, store: CallStore) -> None:
    rows = [call(MINT, T) | {"liq": ""}, call(MINT, T) | {"liq": 5}, call(MINT, T) | {"liq": 6}]
    path = write_csv(tmp_path / "c.csv", rows)
    first, second = ingest_calls([path], store), ingest_calls([path], store)
    assert (first.inserted, first.updated, first.unchanged) == (1, 0, 2)
    assert (second.inserted, second.updated, second.unchanged) == (0, 0, 3)
    assert rows_of(store, "SELECT liquidity_usd FROM alerts") == [(5.0,)]


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["alert_ts", "alert_ts_ms", "created_at"])
@pytest.mark.parametrize("stamp", ["20250718", "202507181450", "20250718145051", "20250718145051588"])
def test_digits_of_a_date_are_no_count(tmp_path: Path, store: CallStore, column: str, stamp: str) -> None:
    path = write_csv(tmp_path / "c.csv", [{"mint": MINT, "caller": "a", column: stamp}])
    with pytest.raises(InputError, match=rf"c\.csv: column {column} holds {stamp}, which is no time in s, ms or µs"):
        ingest_calls([path], store)
    assert not store.path.exists()


def test_local_times_of_a_table_are_read_in_their_time_zone(tmp_path: Path, store: CallStore) -> None:
    texts = {"a": "2025-07-18 16:50:51", "b": "2025-07-18T14:50:51Z", "c": f"{T}"}
    for name, text in texts.items():
        path = write_csv(tmp_path / f"{name}.csv", [{"mint": MINT, "caller": name, "call_time": text}])
        assert ingest_calls([path], store, timezone="Europe/Berlin").inserted == 1
    assert rows_of(store, "SELECT DISTINCT alert_ts_ms FROM alerts") == [(T,)]


def test_a_table_without_callers_names_the_option(tmp_path: Path, store: CallStore) -> None:
    path = write_csv(tmp_path / "m.csv", [{"id": 1, "date": "2025-07-18T14:50:51Z", "text": f"gem {MINT}"}])
    assert "the caller is empty; give --caller NAME" in ingest_calls([path], store).refusal
    assert ingest_calls([path], store, caller="Ann").inserted == 1


def test_no_call_is_later_than_tomorrow(tmp_path: Path, store: CallStore) -> None:
    import time

    now = round(time.time() * 1000)
    rows = [call(MINT, now + hours * 3_600_000, call_id=str(hours)) for hours in (0, 23, 25, 24 * 365 * 500)]
    report = ingest_calls([write_csv(tmp_path / "c.csv", rows)], store)
    assert (report.inserted, report.rejected) == (2, {"in_future": 2})
    assert "row 3: alert_ts_ms" in report.notes[0] and "is later than tomorrow" in report.notes[0]


# --- what is rejected -------------------------------------------------------------------------------------------------


def test_rejected_rows_keep_their_text_file_and_row(tmp_path: Path, store: CallStore) -> None:
    good, late = {"caller": "a", "mint": MINT, "alert_ts": "2025-07-18"}, "07/18/2025 14:50"
    rows = [
        good,
        good | {"alert_ts": late},
        good | {"mint": ""},
        good | {"caller": "__all__"},
        good | {"alert_ts": late},
    ]
    path = write_csv(tmp_path / "c.csv", rows)
    report = ingest_calls([path], store)
    assert report.rejected == {"alert_ts_ms": 2, "mint": 1, "reserved_caller": 1}
    kept = rows_of(store, "SELECT reason, text, file, row FROM rejected_alerts ORDER BY row")
    assert kept == [
        ("alert_ts_ms", late, str(path), 2), ("mint", "", str(path), 3), ("reserved_caller", "__all__", str(path), 4),
        ("alert_ts_ms", late, str(path), 5),
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert report.notes == [
        f"{path}: row 2: alert_ts {late!r} is no time; write ISO-8601 or a count of s, ms or µs "
        "(4 rows of the file rejected); rejected rows are in the table rejected_alerts"
    ]


def test_an_ingest_of_which_nothing_is_taken_is_an_error(tmp_path: Path, quantbot: Quantbot) -> None:
    rows = [
        {"caller": "a", "mint": MINT, "alert_ts": text}
        for text in ("07/18/2025 14:50", "18.07.2025 14:50:51 UTC+10:00")
    ]
    path = write_csv(tmp_path / "calls.csv", rows)
    status, _, err = quantbot("ingest", "calls", path, "--home", tmp_path / "new")
    assert (status, err.count("\n")) == (2, 1)
    assert f"{path}: row 1: alert_ts '07/18/2025 14:50' is no time" in err
    lab = Home(Settings(home=tmp_path / "new"))
    kept = rows_of(lab.calls, "SELECT text, row FROM rejected_alerts ORDER BY row")
    assert kept == [("07/18/2025 14:50", 1), ("18.07.2025 14:50:51 UTC+10:00", 2)]
    assert rows_of(lab.calls, "SELECT * FROM alerts") == []


def test_the_table_names_the_store_and_notes_go_to_standard_error(tmp_path: Path, quantbot: Quantbot) -> None:
    path = write_csv(tmp_path / "calls.csv", [call(MINT, T), call("", T)])
    status, out, err = quantbot("ingest", "calls", path, "--home", tmp_path / "new")
    assert status == 0
    assert "alerts.duckdb" in out and "mint 1" in out
    assert f"{path}: row 2: the mint is empty; rejected rows are in" in err


def test_columns_of_any_name_can_be_mapped(tmp_path: Path, quantbot: Quantbot) -> None:
    path = write_csv(tmp_path / "c.csv", [{"Coin": MINT, "who": "Ann", "t": "2025-07-18T14:50:51Z", "mint": "other"}])
    mapped = ("--map", "mint=coin", "--map", "caller_name=who", "--map", "alert_ts=t")
    status, _, err = quantbot("ingest", "calls", path, "--home", tmp_path / "new", *mapped)
    assert status == 0, err
    lab = Home(Settings(home=tmp_path / "new"))
    assert rows_of(lab.calls, "SELECT mint, caller_name, alert_ts_ms FROM alerts") == [(MINT, "Ann", T)]
    with pytest.raises(InputError, match="--map who: calls have no such column; choose one of call_id, mint, "):
        ingest_calls([path], lab.calls, mapping={"who": "who"})
    with pytest.raises(InputError, match=r"c\.csv: missing column Token"):
        ingest_calls([path], lab.calls, caller="x", mapping={"mint": "Token", "alert_ts": "t"})


def test_records_may_be_within_an_object(tmp_path: Path, store: CallStore) -> None:
    rows = [{"caller_name": "A", "mint": f"m{i}", "alert_ts_ms": T + i} for i in range(3)]
    (tmp_path / "calls.json").write_text(json.dumps({"status": "ok", "data": {"calls": rows}}))
    assert ingest_calls([tmp_path / "calls.json"], store).inserted == 3
