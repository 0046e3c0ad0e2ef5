"""The documentation against the code: no view, key or reason is missing, links resolve, examples are true.

Tables of columns, settings and commands are generated: see test_docs_tables.
"""

import json
import re
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.reports.leaderboard import leaderboard
from quantbot_pipeline.runs.manifest import RunManifest
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.search.grid import Grid
from quantbot_pipeline.search.objective import VIOLATIONS, Constraints
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import CALL_STATUSES, EXIT_REASONS
from quantbot_pipeline_tests.support.builders import call, candles, write_csv

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "data").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", text)


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", prose(text), re.MULTILINE | re.DOTALL)
    assert found, f"no section {heading!r}"
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """Cells of the rows of all tables in a text, without the lines of headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(cells) if i not in rules and i + 1 not in rules]


def names(cell: str) -> list[str]:
    """The words in backticks of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_view_of_the_catalog_is_told() -> None:
    assert {"latest_runs", *ARTIFACTS} <= set(names(section(read("artifacts.md"), "Views")))


def test_every_key_of_run_json_is_told() -> None:
    told = {key for row in rows(section(read("artifacts.md"), "run.json")) for key in names(row[0])}
    assert told == set(RunManifest.model_fields)


def test_every_option_of_the_search_is_told() -> None:
    page = read("search.md")
    assert [names(row[0])[0] for row in rows(section(page, "Grid"))] == list(Grid.model_fields)
    assert [names(row[0])[0] for row in rows(section(page, "Constraints"))] == list(Constraints.model_fields)


def test_every_reason_is_told() -> None:
    page = read("semantics.md")
    assert {*EXIT_REASONS, *CALL_STATUSES[1:], *VIOLATIONS} <= set(names(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_sql_examples_run(tmp_path: Path) -> None:
    """On an empty catalog, read-only, with plain DuckDB: what is checked is that names and syntax are right."""
    (tmp_path / "runs").mkdir()
    sync(Catalog(tmp_path / "catalog.duckdb", LocalRuns(tmp_path / "runs")))
    queries = [query for page in PAGES for query in blocks(page.read_text(encoding="utf-8"), "sql")]
    assert len(queries) >= 5
    with duckdb.connect(str(tmp_path / "catalog.duckdb"), read_only=True) as con:
        for query in queries:
            con.execute(query).fetchall()


def test_the_query_of_each_month_once_reads_what_the_reports_read(tmp_path: Path) -> None:
    lab = Home(Settings(home=tmp_path))
    ingest_calls([write_csv(tmp_path / "calls.csv", [call("m", "2024-01-01T00:00:00")])], lab.calls)
    ingest_candles([write_csv(tmp_path / "c.csv", candles("m", "2024-01-01T00:05:00", 30))], lab.candles, "5m")
    # Two configurations on candles that exist; the newest run of all has none, and so no row.
    for values in ({"interval": "5m"}, {"interval": "5m", "horizon_ms": 3_600_000}, {"interval": "1h"}):
        assert run_month(lab, "path-only", "2024-01", make_config(values)) is not None
    sync(lab.catalog)
    (query,) = [query for query in blocks(read("artifacts.md"), "sql") if "reported AS" in query]
    with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
        told = con.execute(query).fetchall()
    board = leaderboard(lab.catalog)
    assert told == [(row["caller_name"], row["calls"], row["median_peak_multiple"]) for row in board]
    assert [calls for _, calls, _ in told] == [1]


def test_the_worked_example_is_what_the_engine_makes(tmp_path: Path) -> None:
    """The table of semantics.md is what the engine makes of the files of semantics.md."""
    page = read("semantics.md")
    (calls, candles), (policies,) = blocks(page, "csv"), blocks(page, "json")
    (tmp_path / "calls.csv").write_text(calls)
    (tmp_path / "candles.csv").write_text(candles)
    lab = Home(Settings(home=tmp_path, calls_db=None))
    ingest_calls([tmp_path / "calls.csv"], lab.calls)
    ingest_candles([tmp_path / "candles.csv"], lab.candles, "5m")
    config = make_config({"policies": json.loads(policies), "horizon_ms": 1_800_000, "both_orders": True})
    result = run_month(lab, "policy", "2024-01", config)
    assert result is not None
    trades = pq.read_table(result.run_dir / "policy/trades.parquet").to_pylist()
    told = section(page, "A worked example")
    header, *lines = [line for line in told.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert len(lines) == 1 + len(trades)
    for row, trade in zip(rows(told), trades, strict=True):
        for column, cell in zip(columns, row, strict=True):
            assert cell.strip("`") == shown(column, trade)


def shown(column: str, trade: dict[str, object]) -> str:
    """A value of a trade as the table of the worked example writes it."""
    if column == "exit":
        seconds = int(str(trade["exit_ts_ms"])) // 1000 % 86_400
        return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}"
    value = trade[column]
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value).lower() if isinstance(value, bool) else str(value)
