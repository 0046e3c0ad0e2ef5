"""Rendering: JSON that every parser takes, CSV that no spreadsheet runs, a terminal that no cell can command."""

import csv
import io
import json
import math
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbot_pipeline.cli.tables import print_table, to_csv, to_json
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL

FORMULAS = ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "=cmd|' /C calc'!A0")


def strict(text: str) -> list[dict[str, object]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_keeps_values_and_has_no_word_for_nan() -> None:
    rows = [
        {
            "nan": math.nan,
            "inf": [math.inf, {"deep": -math.inf}],
            "x": 0.1 + 0.2,
            "n": 2**53 + 1,
            "t": True,
            "none": None,
        }
    ]
    assert strict(to_json(rows)) == [
        {"nan": None, "inf": [None, {"deep": None}], "x": 0.1 + 0.2, "n": 2**53 + 1, "t": True, "none": None}
    ]
    assert strict(to_json([])) == []
    moments = {"naive": datetime(2024, 1, 2, 3, 4, 5, 678_901), "aware": datetime(2024, 1, 2, tzinfo=UTC)}
    assert strict(to_json([moments])) == [{"naive": "2024-01-02T03:04:05.678901Z", "aware": "2024-01-02T00:00:00.000Z"}]


@given(st.lists(st.fixed_dictionaries({"a": st.text(st.characters(exclude_categories=["Cs"])), "b": st.floats()})))
def test_json_round_trips(rows: list[dict[str, object]]) -> None:
    expected = [{"a": r["a"], "b": r["b"] if math.isfinite(r["b"]) else None} for r in rows]  # type: ignore[arg-type]
    assert strict(to_json(rows)) == expected


def test_hostile_text_survives_json_and_csv() -> None:
    rows = [{"n": i, "text": text} for i, text in enumerate(HOSTILE_WITH_NUL)]
    assert strict(to_json(rows)) == rows
    texts = [text for text in HOSTILE_WITH_NUL if "\x00" not in text]  # Python's reader takes no NUL
    read = list(csv.DictReader(io.StringIO(to_csv([{"n": 1, "text": text} for text in texts]), newline="")))
    assert [row["text"].removeprefix("'") for row in read] == texts


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_guards_what_a_spreadsheet_would_run(text: str) -> None:
    read = list(csv.reader(io.StringIO(to_csv([{"cell": text, "number": -1.5, "count": -2}]), newline="")))
    assert read == [["cell", "number", "count"], ["'" + text, "-1.5", "-2"]], "numbers stay numbers"


def test_csv_cells() -> None:
    rows = [{"a": None, "b": math.nan, "c": [1, {"x": math.inf}], "d": datetime(2024, 1, 2), "e": True, "f": 0.1}]
    assert list(csv.reader(io.StringIO(to_csv(rows)))) == [
        ["a", "b", "c", "d", "e", "f"],
        ["", "", '[1, {"x": null}]', "2024-01-02T00:00:00.000Z", "True", "0.1"],
    ]
    assert to_csv([], ["a", "b"]) == "a,b"
    assert to_csv([{"a": 1, "b": 2}], ["b"]) == "b\n2"


def test_no_cell_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for text in HOSTILE_WITH_NUL if len(text) < 100]
    print_table(
        [{"text": text, "[red]x": 1} for text in [*texts, "[bold]markup[/]", "\x9b31m", "\u2028"]], "[b]Title[/b]"
    )
    out = capsys.readouterr().out
    assert [c for c in out if not c.isprintable() and c != "\n"] == []
    for shown in ("[bold]markup[/]", "<script>alert(1)</script>", "=1+1", "�[31mred�", "🦊�🚀 �gnp.exe"):
        assert shown in out


def test_tables_show_numbers_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"ratio": 0.123456, "big": 1234567.89, "flag": True, "none": None, "nan": math.nan, "list": [1]}]
    print_table(rows, "Title")
    out = capsys.readouterr().out
    assert "Title" in out
    for shown in ("0.1235", "1,234,567.9", "yes", "–", "[1]"):
        assert shown in out
    print_table([], "Nothing", ["a"])
    assert "Nothing" in capsys.readouterr().out


def test_a_table_in_a_pipe_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{f"column_{i}": "x" * 30 for i in range(20)}], "Wide")
    out = capsys.readouterr().out
    assert any(line.count("x" * 30) == 20 for line in out.splitlines())


@pytest.mark.parametrize("width", range(20, 130, 7))
def test_a_narrow_terminal_shows_whole_numbers_or_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Columns that do not fit are left out and named: a number cut in half would be another number."""
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    row = {"caller_name": "sample:alpha_hunter", **{f"median_number_{i}": -1_234_567.125 * (i + 1) for i in range(8)}}
    print_table([row], "Callers")
    shown = capsys.readouterr()
    out = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert max(map(len, out.splitlines())) <= max(width, 20)
    complete = [name for name in row if name != "caller_name" and f"{row[name]:,.1f}" in out]
    numbers = [word for word in out.split() if word.startswith("-")]
    assert len(numbers) == len(complete)
    left_out = [name.replace("_", " ") for name in row if name != "caller_name" and name not in complete]
    assert all(name in shown.err for name in left_out)
    assert (shown.err == "") == (not left_out)
