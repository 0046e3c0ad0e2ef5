"""Names of callers and tokens, whatever they hold: exact in Parquet and in the catalog, harmless everywhere else."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.cli.tables import to_csv, to_json
from quantbot_pipeline.config import make_config
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market.calls import read_calls
from quantbot_pipeline.reports.leaderboard import leaderboard
from quantbot_pipeline.reports.searches import frontier
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL, call, candle, make_home, ms, write_csv
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

T = ms("2024-01-10")
NAMES_PER_LAB = 25
RESERVED = (
    "CON",
    "nul",
    "COM1.txt",
    "aux",
    ".",
    "..",
    "~",
    ".staging",
    "_SUCCESS",
    "run_id=1",
    "month=2024-01",
    "__HIVE_DEFAULT_PARTITION__",
)
WORDS = (
    *HOSTILE_WITH_NUL,
    *RESERVED,
    "=1+1",
    "+1",
    "-1",
    "@x",
    "\t=1",
    "NULL",
    "None",
    "NaN",
    "inf",
    "001",
    "1e5",
    "0x10",
    "1_000",
    "true",
    "é",
    "ﬁ",
)
QUICK = [
    "O'Brien; --",
    "é",
    unicodedata.normalize("NFD", "é"),
    "nul\x00",
    "x" * 10_000,
    *RESERVED[:4],
    "=1+1",
    "NULL",
    "001",
    "1e5",
]

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
twins = text.flatmap(lambda t: st.sampled_from([unicodedata.normalize(form, t) for form in ("NFC", "NFD", "NFKC")]))
piece = st.one_of(text, twins, st.sampled_from(WORDS))
name = st.one_of(piece, st.tuples(piece, piece).map("".join), piece.map(lambda t: (t * 10_000)[:10_000]))
names = st.lists(name.filter(lambda t: t != "__all__"), min_size=NAMES_PER_LAB, max_size=NAMES_PER_LAB, unique=True)


def broken_by(home: Path, chosen: list[str]) -> list[str]:
    """The names that do not come out of a lab as they went in; anything else that goes wrong is an assertion."""
    calls = [call(text, T - 60_000, text, call_id=f"id {text}", chain=text) for text in chosen]
    lab = make_home(home, calls, [candle(text, T + 300_000 * i) for text in chosen for i in range(3)])
    made = run_month(lab, "full", "2024-01", make_config({"grid": {}}))
    assert made is not None
    sync(lab.catalog)
    wrong = []
    table = {row["call_id"]: row for row in read_artifact(made.run_dir, made.manifest, "paths").to_pylist()}
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        viewed = dict(con.execute("SELECT call_id, [mint, caller_name, chain] FROM paths").fetchall())
        ranked = {caller for (caller,) in con.execute("SELECT DISTINCT caller_name FROM frontier").fetchall()}
    board = leaderboard(lab.catalog)
    for text in chosen:
        row = table.get(f"id {text}", {})
        stored = [row.get(column) for column in ("mint", "caller_name", "chain")]
        if not (stored == viewed.get(f"id {text}") == [text] * 3 and text in ranked):
            wrong.append(text)
    assert sorted(row["caller_name"] for row in board) == sorted(chosen)
    assert [row["caller_name"] for row in frontier(lab.catalog, caller=chosen[0])][:1] == chosen[:1]
    harmless(home, board, chosen)
    return wrong


def harmless(home: Path, board: list[dict], chosen: list[str]) -> None:
    """Nothing is named after a name, and no cell of a CSV is a formula."""
    made = [p for p in home.rglob("*") if "inbox" not in p.relative_to(home).parts]
    assert all(len(p.name) < 80 and p.name.isascii() and p.name.isprintable() for p in made)
    assert [row["caller_name"] for row in json.loads(to_json(board))] == [row["caller_name"] for row in board]
    cells = [row[0] for row in csv.reader(io.StringIO(to_csv(board, ["caller_name"])))][1:]
    assert len(cells) == len(chosen)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)


def test_a_lab_of_hostile_names(tmp_path: Path) -> None:
    assert broken_by(tmp_path, QUICK) == []


@pytest.mark.torture
def test_labs_of_five_hundred_names(tmp_path: Path, tally: Tally) -> None:
    tried, lost = set(), []

    @settings(max_examples=32, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(names)
    def one_lab(chosen: list[str]) -> None:
        home = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        wrong = broken_by(home, chosen)
        tried.update(chosen)
        lost.extend(wrong)
        assert not wrong

    one_lab()
    assert len(tried) >= 500
    tally("names of callers and tokens", tried=len(tried), detected=0, lost=len(lost))


@pytest.mark.parametrize("whole", sizes(False, True))
def test_names_in_a_csv(tmp_path: Path, whole: bool) -> None:
    chosen = [text for text in (dict.fromkeys(WORDS) if whole else QUICK) if "\x00" not in text]
    lab = make_home(tmp_path)
    rows = [call(text, T, text, call_id=str(i), chain=text) for i, text in enumerate(chosen)]
    ingest_calls([write_csv(tmp_path / "calls.csv", rows)], lab.calls)
    stored = read_calls(lab.calls, 0, 10**14).calls
    for column in ("mint", "caller_name", "chain"):
        assert sorted(stored[column].to_pylist()) == sorted(chosen)
