"""The generated tables of docs/ are up to date, none is missing, and a column without a meaning is refused in words."""

import re
from pathlib import Path

import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.settings import Settings
from tools import docs_tables
from tools.docs_tables import BLOCK, DOCS, MEANINGS, blocks, main, rendered

PAGES = {page.name: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}


@pytest.mark.parametrize("name", sorted(name for name, text in PAGES.items() if BLOCK.search(text)))
def test_a_page_shows_the_tables_as_the_code_has_them(name: str) -> None:
    old, new = shown(PAGES[name]), shown(rendered(PAGES[name]))
    assert [block for block in new if new[block] != old[block]] == [], "run `make docs-tables`"
    assert rendered(PAGES[name]) == PAGES[name]


def shown(page: str) -> dict[str, str]:
    """Return the generated blocks of a page by their names."""
    return {found[1]: found[0] for found in BLOCK.finditer(page)}


def test_every_table_is_in_one_page() -> None:
    found = [block for text in PAGES.values() for block in BLOCK.findall(text)]
    assert sorted(found) == sorted(blocks())
    assert {f"columns {artifact}" for artifact in ARTIFACTS} <= set(found)


def test_a_table_follows_the_code() -> None:
    (row,) = (row for row in docs_tables.columns("paths").splitlines() if row.startswith("| `t_2x_ms` |"))
    assert row == "| `t_2x_ms` | int64 | yes | ts | when that was known; null without |"
    settings = docs_tables.settings().splitlines()
    assert len(settings) == 2 + len(Settings.model_fields) + 1, "a header of two lines, and DAGSTER_HOME"
    (first,) = (row for row in settings if row.startswith("| `QUANTBOT_PARTITIONS_START` |"))
    assert first.startswith("| `QUANTBOT_PARTITIONS_START` | `2017-01` | first month partition, `YYYY-MM`; ")
    assert all(re.match(r"\| `[A-Z_]+` \| \S.* \| \S.* \|$", row) for row in settings[2:]), (
        "each has a default and a meaning"
    )
    assert re.search(r"^\| `quantbot backtest verify` \| \S.+ \|$", docs_tables.commands(), re.MULTILINE)
    (limit,) = (row for row in docs_tables.options().splitlines() if row.startswith("| `--rolling-months` |"))
    assert limit.split(" | ")[1:3] == ["`3`", "`backfill`, `backtest tune`, `backtest walk-forward`"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"p0": None}, r"meanings\.toml: columns\.paths: no line for 'p0'; add what it means"),
        ({"p9": ["", ""]}, r"meanings\.toml: columns\.paths: 'p9' is no column; take its line out"),
    ],
)
def test_meanings_and_columns_belong_together(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, list[str] | None], complaint: str
) -> None:
    told = {name: text for name, text in (MEANINGS["columns"]["paths"] | change).items() if text is not None}
    monkeypatch.setitem(MEANINGS["columns"], "paths", told)
    with pytest.raises(ValueError, match=complaint):
        docs_tables.columns("paths")


def test_a_block_that_nothing_makes_is_named() -> None:
    with pytest.raises(ValueError, match="generated: columns nothing"):
        rendered("<!-- generated: columns nothing -->\n<!-- end -->")


def test_a_page_that_is_out_of_date_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "artifacts.md"
    page.write_text(BLOCK.sub(r"<!-- generated: \1 -->\nold\n<!-- end -->", PAGES["artifacts.md"]), encoding="utf-8")
    assert main(tmp_path) == 0
    assert page.read_text(encoding="utf-8") == PAGES["artifacts.md"]
    assert capsys.readouterr() == (f"{page}\n", "")
    assert main(tmp_path) == 0
    assert capsys.readouterr() == ("", "")
