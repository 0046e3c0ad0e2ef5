"""Telegram exports: which messages are calls, whose, when; and exports that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.formats.json_text import CHUNK
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline_tests.support.builders import ms, solana_address

SOL = solana_address(1)
PUMP = solana_address(2)
EVM = "0xAb5801a7D398351b8bE11C439e05C5B3259aeC9B"
NEW_YEAR = ms("2024-01-01") // 1000


def message(number: int, text: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": "message",
        "date": "2024-01-01T03:00:00",
        "date_unixtime": str(NEW_YEAR + number),
        "text": text,
    } | more


def write_export(path: Path, messages: Any, **more: Any) -> Path:
    path.write_text(json.dumps({"name": "Alpha 🦊", "type": "private_channel", "id": 42, "messages": messages} | more))
    return path


def test_one_call_per_message_and_address(tmp_path: Path) -> None:
    messages: list[Any] = [
        message(1, f"gm {SOL}, {EVM}! again {SOL}"),
        message(2, ["new: ", {"type": "code", "text": PUMP}, {"type": "bold"}, f" https://x.io/{SOL}?ref=1", 5, None]),
        message(3, f"glued{SOL} and a signature {SOL + PUMP}"),  # too long or part of a word: no address
        message(4, ""),
        {"id": 5, "type": "service", "date_unixtime": "1", "action": "pin_message"},
        message(6, SOL, date_unixtime=None),  # the export's own clock is a last resort
        "no message",
    ]
    messages[5]["date_unixtime"] = str(NEW_YEAR + 6)
    store = tmp_path / "alerts.duckdb"
    report = ingest_calls(
        [write_export(tmp_path / "result.json", messages)], CallStore(store), fmt="telegram", first_mention=0
    )
    assert (report.inserted, report.rejected) == (5, {})
    calls = read_calls(CallStore(store), 0, 10**14).calls.to_pylist()
    found = [(c["call_id"], c["mint"], c["chain"], c["alert_ts_ms"]) for c in calls]
    assert sorted(found) == sorted(
        (f"telegram:42:{number}:{mint}", mint, chain, (NEW_YEAR + number) * 1000)
        for number, mint, chain in [
            (1, SOL, "solana"), (1, EVM.lower(), "evm"), (2, PUMP, "solana"), (2, SOL, "solana"), (6, SOL, "solana"),
        ]
    )  # fmt: skip  # a table: what belongs together stands on one line
    assert {c["caller_name"] for c in calls} == {"Alpha 🦊"}
    # The same chat exported again, with one more message: only that is new.
    again = write_export(tmp_path / "later.json", [*messages, message(7, PUMP)])
    report = ingest_calls([again], CallStore(store), fmt="telegram", first_mention=0)
    assert (report.inserted, report.unchanged) == (1, 5)


def test_the_caller_can_be_named_and_a_message_without_a_time_is_rejected(tmp_path: Path) -> None:
    store = tmp_path / "alerts.duckdb"
    export = write_export(
        tmp_path / "result.json", [message(1, SOL), message(2, SOL, date_unixtime=None, date=None)], name=None
    )
    with pytest.raises(InputError, match=r"result\.json: the export has no chat name; name the caller with --caller"):
        ingest_calls([export], CallStore(store), fmt="telegram", first_mention=0)
    report = ingest_calls([export], CallStore(store), fmt="telegram", caller="me", first_mention=0)
    assert (report.inserted, report.rejected) == (1, {"alert_ts_ms": 1})
    assert read_calls(CallStore(store), 0, 10**14).calls["caller_name"].to_pylist() == ["me"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{oops", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no list of messages"),
        ('{"name": "x", "messages": {}}', "no list of messages"),
        ('{"name": "x", "messages": []}', "no rows"),
        (json.dumps({"name": "x\ud800", "id": 1, "messages": [message(1, SOL)]}), "not valid Unicode"),
    ],
    ids=["broken", "deep", "array", "no list", "empty", "half a character"],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"result\.json: .*{message}"):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)


@pytest.mark.parametrize("number", ["1|5", "1|.5", "1.|5", "1.5|", "1|e5", "1e|5", "1e-|5", "-|1.5E+3", "-1.5E+|3"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_a_number_may_begin_in_one_piece_and_end_in_the_next(tmp_path: Path, number: str, chunks: int) -> None:
    before, after = number.split("|")
    head, middle = '{"name": "x", "id": ', f', "messages": {json.dumps([message(1, SOL)])}}}'
    path = tmp_path / "result.json"
    path.write_text(head + " " * (chunks * CHUNK - len(head + before)) + before + after + middle)
    assert path.read_text()[: chunks * CHUNK].endswith(before)
    store = tmp_path / "alerts.duckdb"
    assert ingest_calls([path], CallStore(store), fmt="telegram", first_mention=0).inserted == 1
    (call_id,) = read_calls(CallStore(store), 0, 10**14).calls["call_id"].to_pylist()
    assert call_id == f"telegram:{json.loads(before + after)}:1:{SOL}"


@pytest.mark.parametrize("number", ["1.|", "1.|x", "1e|]", "1.5.|5", "1e5|e5"])
def test_what_only_begins_like_a_number_is_refused(tmp_path: Path, number: str) -> None:
    before, after = number.split("|")
    head = '{"name": "x", "messages": [], "n": '
    path = tmp_path / "result.json"
    path.write_text(head + " " * (CHUNK - len(head + before)) + before + after + "}")
    with pytest.raises(InputError, match=r"result\.json: not valid JSON: expected '}' at character"):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)


@pytest.mark.parametrize(
    "last", ["1", "1.5", '"x"', "null", "{}", "[]", f'{{"id": 9, "date_unixtime": "{NEW_YEAR}", "text": "{SOL}"}}']
)
@pytest.mark.parametrize("blank", ["", " \n\t"])
@pytest.mark.parametrize("cut", range(3))
def test_many_short_entries_are_read_wherever_a_piece_ends(tmp_path: Path, cut: int, blank: str, last: str) -> None:
    entry = f'{{"id": 1, "date_unixtime": "{NEW_YEAR}", "text": "{SOL}"}}'
    entries = [entry, "1e3", *["0"] * (CHUNK // 2), entry.replace("1", "2", 1), "-1.25E+2", last]
    head = '{"name": "x", "id": 7, "messages": [' + " " * cut
    path = tmp_path / "result.json"
    path.write_text(head + f"{blank},{blank}".join(entries) + blank + "]}")
    expected = [str(m["id"]) for m in json.loads(path.read_text())["messages"] if isinstance(m, dict) and "id" in m]
    ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)
    calls = read_calls(CallStore(tmp_path / "alerts.duckdb"), 0, 10**14).calls
    assert sorted(calls["call_id"].to_pylist()) == [f"telegram:7:{number}:{SOL}" for number in expected]


@pytest.mark.parametrize(
    "end", ["1 2]}", "1,,2]}", "1.]}", "01]}", "1e]}", "{},]}", "1,", '{"id": 1},"', "nul]}"], ids=repr
)
def test_what_is_no_list_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"name": "x", "messages": [' + "0," * CHUNK + end)
    with pytest.raises(InputError, match=r"result\.json: not valid JSON: "):
        ingest_calls([path], CallStore(tmp_path / "alerts.duckdb"), fmt="telegram", first_mention=0)
