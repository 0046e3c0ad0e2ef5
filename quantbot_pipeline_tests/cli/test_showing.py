"""What the options that all reports share do to rows, and that a report says the same in every format."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantbot_pipeline import Home
from quantbot_pipeline.cli.showing import chosen_rows
from quantbot_pipeline.cli.tables import print_table, to_html
from quantbot_pipeline.errors import InputError
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import HOSTILE

ROWS: list[dict[str, Any]] = [
    {"caller_name": "a", "calls": 3, "bps": None},
    {"caller_name": "b", "calls": 1, "bps": 5.0},
    {"caller_name": "c", "calls": 2, "bps": -7.0},
    {"caller_name": "a", "calls": None, "bps": 6.0},
]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"sort": "bps"}, [2, 1, 3, 0]),
        ({"sort": "-bps"}, [3, 1, 2, 0]),
        ({"sort": "-calls", "limit": 2}, [0, 2]),
        ({"caller": "a"}, [0, 3]),
        ({"min_calls": 2}, [0, 2]),
        ({"min_calls": 1, "sort": "calls", "limit": 1}, [1]),
        ({"limit": 0}, []),
    ],
)
def test_rows_are_filtered_then_sorted_then_limited(given: dict[str, Any], expected: list[int]) -> None:
    found = chosen_rows(ROWS, ("caller_name", "calls", "bps"), {"sort": None} | given)
    assert found == [ROWS[i] for i in expected]


@pytest.mark.parametrize(
    ("given", "words"), [({"sort": "-nope"}, "'nope'.*caller_name, calls"), ({"caller": "x"}, "'x'.*a, b, c")]
)
def test_what_is_not_there_is_named_with_what_is(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        chosen_rows(ROWS, ("caller_name", "calls", "bps"), {"sort": None} | given)


def test_nothing_in_a_cell_is_html() -> None:
    page = to_html([{"<b>": text} for text in HOSTILE], ["<b>"], "<script>")
    assert page.count("<script>") == page.count("<b>") == page.count("<img") == 0
    assert page.count("<tr>") == len(HOSTILE) + 1


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_id_and_no_word_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    row = {
        "kind": "walk-forward",
        "run_id": "00000000-0000-4000-8000-000000000000",
        "text": "a sentence of several words",
        "policy_id": "combo(ladder_2x0.5+3x0.3+4x0.2&trail_a0.2_t0.1)",
        "number": 1,
    }
    print_table([row], "Runs")
    shown = capsys.readouterr()
    words = set(shown.out.split())
    for name, cell in row.items():
        whole = set(str(cell).split()) <= words
        assert whole != (name.replace("_", " ") in shown.err)
    assert ("run id" in shown.err) == (width == 40)


def test_a_report_says_the_same_in_every_format(quantbot: Quantbot, home: Path) -> None:
    assert "What each policy earned" in quantbot("backtest", "policy", "--from", "2024-01", "--to", "2024-02").out
    rows = quantbot("policies", "--sort", "policy_id", "--format", "json").json()
    assert len(rows) == 4 and {row["months"] for row in rows} == {2}
    for ending in ("json", "csv", "parquet", "html"):
        done = quantbot("policies", "--sort", "policy_id", "--out", home / f"p.{ending}")
        assert (done.status, done.out, done.err) == (0, "", "")
    assert json.loads((home / "p.json").read_text()) == rows
    assert pq.read_table(home / "p.parquet").to_pylist() == rows
    with (home / "p.csv").open() as file:
        assert [row["policy_id"] for row in csv.DictReader(file)] == [row["policy_id"] for row in rows]
    assert all(row["policy_id"] in (home / "p.html").read_text() for row in rows)
    (one,) = quantbot("policies", "--limit", "1", "--columns", "trades,policy_id", "--format", "json").json()
    assert list(one) == ["trades", "policy_id"]
    january = quantbot("policies", "--to", "2024-01", "--format", "json").json()
    assert {row["months"] for row in january} == {1}
    assert Home(home).between(None, "2024-01").policies()["trades"].tolist() == [row["trades"] for row in january]
    assert "YYYY-MM" in quantbot("policies", "--from", "2024-01-05").complaint
    assert ".parquet" in quantbot("policies", "--out", "p.xlsx").complaint
    assert quantbot("query", "SELECT 1 AS a", "--out", home / "q.csv").status == 0
    assert (home / "q.csv").read_text() == "a\n1\n"
