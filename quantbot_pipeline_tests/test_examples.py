"""The analysis cookbook is true: every example runs on the sample market and prints what docs/analysis.md shows."""

import contextlib
import io
import json
import runpy
from pathlib import Path

import pytest

from examples.account import CALLER, FIGURE, account, draw
from examples.lab import MONTHS
from examples.render import HERE, PAGE, SNIPPET, rendered
from quantbot_pipeline import Home
from quantbot_pipeline_tests.conftest import Quantbot


@pytest.fixture
def lab(examples_lab: Path) -> Path:
    """The home that the examples were written on."""
    return examples_lab


def test_the_page_shows_what_the_examples_print(lab: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    fresh = rendered(page, lab)
    changed = [
        old[1] for old, new in zip(SNIPPET.finditer(page), SNIPPET.finditer(fresh), strict=True) if old[0] != new[0]
    ]
    assert not changed, f"run `make examples` and read what changed in {', '.join(changed)}"
    assert fresh == page


def test_every_query_answers_on_what_the_readme_makes_or_says_why_not(quantbot: Quantbot) -> None:
    """The commands of README.md, for the four months of a small home: no `full` run, one policy, one branch."""
    span = ("--from", "2024-01", "--to", "2024-05")
    stop = json.dumps({"kind": "fixed_stop", "stop_pct": 0.2, "take_profit_pct": 1})
    for command in (("path-only",), ("policy", "--policy", stop), ("optimize",), ("walk-forward",), ("evidence",)):
        assert quantbot("backtest", *command, *span).status == 0
    silent = []
    for path in sorted((HERE / "sql").glob("*.sql")):
        done = quantbot("query", f"@{path}", "--format", "json")
        if done.json() == []:
            silent.append(path.stem)
            assert "no row was found (" in done.err
    assert silent == ["policies_paired", "runs_parameters", "runs_regressions"]
    done = quantbot("query", "FROM equity JOIN latest_runs USING (run_id)")
    assert "no cataloged run holds equity: `quantbot backtest baseline" in done.err


def test_the_notebook_ends_with_a_verdict_beside_every_number() -> None:
    """Its cells were run for the page; it is committed without outputs."""
    cells = json.loads((HERE / "notebooks" / "verdict.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells)
    section = PAGE.read_text(encoding="utf-8").split("<!-- notebooks/verdict.ipynb -->")[1].split("<!-- end -->")[0]
    shown = section.split("```text\n")[1:]
    assert len(shown) == sum(cell["cell_type"] == "code" for cell in cells) - 1, "all but the first cell show something"
    assert "better | earns more" in shown[1] and "better    earns more" in shown[-1]


def test_the_figure_is_the_account_of_the_evidence(lab: Path) -> None:
    """The last point of its mean is `e_choice`: none of this caller's choices had a hurdle."""
    home = Home(lab)
    found = account(home)
    (row,) = home.sql(
        f"SELECT e_choice FROM evidence JOIN latest_runs USING (run_id) WHERE month = '{MONTHS[-1]}' AND caller_name = '{CALLER}'"
    )["e_choice"]
    assert found.wealth[-1].mean() == pytest.approx(row, rel=1e-12)
    assert found.wealth[0].tolist() == [1.0] * len(found.fractions)
    assert FIGURE.read_text(encoding="utf-8") == draw(found), "run `make examples`"


def test_no_example_is_missing_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = sorted(found[1] for found in SNIPPET.finditer(page) if not found[1].endswith(".ipynb"))
    there = sorted(
        path.relative_to(HERE).as_posix()
        for kind in ("sql", "python")
        for path in (HERE / kind).iterdir()
        if path.is_file()
    )
    assert shown == there
    assert len(shown) >= 20


def test_the_walk_through_runs_to_its_end(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOT_HOME", str(lab))
    path = HERE / "walkthrough.py"
    assert path.read_text(encoding="utf-8").count("# %%") >= 8
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        cells = runpy.run_path(str(path))
    low, high = cells["intervals"]["sample:rare_gem"]
    assert cells["first"]["caller_name"] == "sample:alpha_hunter", "the largest e-value of three months"
    assert 0 < low < cells["first"]["hit_2x_rate"] < high < 1
    assert cells["month"] == MONTHS[-1]
    assert len(cells["points"]) == 450  # the whole grid
    assert cells["chart"].to_dict()["mark"]["type"] == "point"
    assert "run.json" in printed.getvalue()
