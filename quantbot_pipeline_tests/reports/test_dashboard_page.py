"""The page as a reader sees it: opened from disk in Chromium, without a network, at two widths and in two themes."""

import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from quantbot_pipeline import Home as PublicHome
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard.page import write_dashboard
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.reports.conftest import OpenWindow
from quantbot_pipeline_tests.reports.test_dashboard_data import GRID, NEWEST, ask
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_evidence, commit_run
from quantbot_pipeline_tests.support.markets import CALLS_PER_MONTH, CLOSING, FORMULA, MARKUP, MONTHS
from quantbot_pipeline_tests.support.windows import SECTIONS, Window

# Charts that a section draws over the market's runs.
CHARTS = {
    "overview": 1,
    "callers": 0,
    "policies": 2,
    "frontier": 2,
    "walk-forward": 2,
    "tuning": 0,
    "v1": 1,
    "predictions": 0,
    "anomalies": 0,
    "calls": 0,
    "errors": 0,
}
CALLER_CHARTS = 11


def fits(window: Window) -> bool:
    """No part of the page is wider than the window (tables scroll inside)."""
    return window.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_section_is_drawn(open_window: OpenWindow, page_file: Path, width: int) -> None:
    assert page_file.stat().st_size < 3_000_000
    window = open_window(page_file, width=width)
    pages = [(section, "", CHARTS[section]) for section in SECTIONS]
    pages += [("caller", name, CALLER_CHARTS) for name in (MARKUP, FORMULA)] + [("call", "0", 1), ("call", "8", 1)]
    for section, argument, charts in pages:
        window.go(section, argument)
        drawn = window.charts()
        assert len(drawn) == charts, section
        assert all(chart["marks"] > 0 and chart["width"] > width / 4 and chart["height"] > 100 for chart in drawn), (
            section
        )
        assert fits(window), section
        assert window.page.locator("h1").count() == 1
        assert window.page.locator("main .card, main .tile").count() > 0


def test_a_hostile_name_is_text_everywhere(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    page = window.page
    names = (MARKUP, FORMULA, CLOSING)
    for section in ("callers", "frontier", "walk-forward", "v1", "calls", "errors"):
        window.go(section)
        shown = page.locator("main").inner_text()
        assert [name for name in names if name not in shown] == ([CLOSING] if section == "errors" else []), section
        assert page.locator("main img, main script").count() == 0
    for name in names:
        window.go("callers")
        page.get_by_role("link", name=name, exact=True).click()
        window.settle()
        assert page.locator("h1").inner_text().startswith(name)
        assert page.title().startswith(name)
    window.go("frontier")
    tips = []
    for dot in page.locator(".chart").first.locator(".mark-symbol path").all():
        dot.hover(force=True)
        tips.append(page.locator(".tip").inner_text())
    assert all(any(name in tip for tip in tips) for name in names)
    assert page.locator(".tip *:not(dl, dt, dd)").count() == 0


def test_tables_sort_search_and_filter(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    page = window.page
    window.go("callers")
    calls = page.locator("th[data-column=calls]")
    calls.get_by_role("button").click()
    counts = [row["calls"] for row in window.rows("Callers")]
    assert counts == sorted(counts, reverse=True)
    assert calls.get_attribute("aria-sort") == "descending"
    calls.get_by_role("button").press("Enter")
    assert [row["calls"] for row in window.rows("Callers")] == sorted(counts)
    assert calls.get_attribute("aria-sort") == "ascending"
    page.get_by_placeholder("Search callers").fill("ONERROR")
    assert [row["calls"] for row in window.rows("Callers")] == [18]
    assert page.get_by_role("status").inner_text() == "1 of 4 rows"
    page.get_by_placeholder("Search callers").fill("")
    assert page.locator("tr.few").count() == 3
    assert page.locator("tr.few .tag").first.inner_text() == "only 3"
    page.get_by_label("Hide callers with fewer than 10").check()
    assert [row["calls"] for row in window.rows("Callers")] == [18]


def test_verdicts_lead_and_callers_without_one_stay_below_the_line(open_window: OpenWindow, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    names = ["no verdict", "refuted", "lucky", "sure"]
    paths = artifact_rows("paths", 4, caller_name=names, interval=["5m"] * 4, hit_2x=[True, True, True, False])
    commit_run(home.runs.folder, tables={"alerts": artifact_rows("alerts", 4), "paths": paths})
    judged = artifact_rows(
        "evidence", 3, caller_name=names[1:], verdict=["none", "inconclusive", "evidence"], e_value=[0.5, 2.0, 1_560.0],
        e_threshold=[40.0] * 3, units=[31, 5, 32], mints=[31, 1, 32], calls_needed=[None, 48, None], hit_2x=[1, 1, 15],
        choice_mean_bps=[-90.0, 10.0, 900.0], towards=[None, "evidence", None], flags=["", "few_calls,few_mints", ""],
    )  # fmt: skip  # a table: what belongs together stands on one line
    commit_evidence(home, "2024-01", judged)
    sync(home.catalog)
    window = open_window(write_dashboard(home))
    window.go("callers")
    page = window.page
    rows = window.rows("Callers by verdict")
    assert list(rows[0])[:6] == ["caller_name", "verdict", "e_value", "units", "choice_mean_bps", "hit_2x_shrunk"]
    assert [row["e_value"] for row in rows[:3]] == [1_560.0, 0.5, 2.0], "too few calls stand below the line"
    cells = page.locator("td[data-column=verdict]").all_inner_texts()
    assert [text.split("\n")[0] for text in cells] == ["evidence", "none", "inconclusive", "–"]
    assert "about 48 more calls, towards evidence" in cells[2] and "few mints" in cells[2]
    assert "1,560 / 40" in page.locator("td[data-column=e_value]").first.inner_text()
    assert "15 of 32" in page.locator("td[data-column=hit_2x_shrunk]").first.inner_text()
    assert page.get_by_text("Below the line: no verdict in 2024-01").is_visible()
    for column in ("hit_2x_rate", "caller_name", "calls"):
        for _ in range(2):
            page.locator(f"th[data-column={column}] button").first.click()
            assert page.locator("tbody tr").last.get_attribute("class") == "few below"
            assert "no" in page.locator("tbody tr").last.locator("th").inner_text()
    window.go("caller", "no verdict")
    assert "No verdict on this caller" in page.locator("main").inner_text()
    window.go("caller", "sure")
    assert "Not drawn" in page.locator("main").inner_text(), "this run has no curves"


def test_the_evidence_of_a_caller_is_drawn(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    window.go("caller", MARKUP)
    card = window.page.locator(".card", has=window.page.locator("h2", has_text="e by month"))
    assert card.locator(".mark-symbol.role-mark path").count() == 2 * len(MONTHS)
    ticks = [text for text in card.locator(".role-axis-label text").all_text_contents() if "-" not in text]
    assert ticks and all(float(text) > 0 for text in ticks if text), "a logarithmic axis has no zero"
    for title, marks in (("Time to 2x against a stop", 3), ("Cost of size", 1), ("Cost of delay", 1)):
        drawn = window.page.locator(".card", has=window.page.locator("h2", has_text=title))
        assert drawn.locator(".mark-line path").count() == marks, title


def test_the_tables_shown_equal_queries_on_the_catalog(open_window: OpenWindow, page_file: Path, market: Home) -> None:
    window = open_window(page_file)
    window.go("callers")
    expected = ask(
        market,
        f"""SELECT count(*) AS calls, count(DISTINCT mint) AS mints, avg(hit_2x::INT) AS hit_2x_rate,
                   median(peak_multiple) AS median_peak_multiple, median(dd_bps) AS median_dd_bps
            FROM paths WHERE run_id IN ({NEWEST.format(artifact="paths", strategy=GRID)}) GROUP BY caller_name""",
    )

    def chosen(rows: list[dict]) -> list[tuple]:
        return sorted(tuple(row[name] for name in expected[0]) for row in rows)

    assert chosen(window.rows("Callers")) == chosen(expected)
    window.go("frontier")
    expected = ask(
        market,
        f"""SELECT objective_score, avg_return_bps, median_return_bps, stop_out_rate, p95_drawdown_bps, trades
            FROM frontier JOIN backtest_runs_catalog USING (run_id)
            WHERE rank = 1 AND month = '{MONTHS[-1]}' AND run_id IN ({NEWEST.format(artifact="frontier", strategy=GRID)})""",
    )
    shown = window.rows("Best policy of each caller")
    assert chosen(shown) == chosen(expected)
    flags = ask(
        market,
        f"""SELECT objective_score, CASE WHEN is_pareto THEN 'yes' ELSE 'no' END AS is_pareto,
                   CASE WHEN meets_constraints THEN 'yes' ELSE 'no' END AS meets_constraints
            FROM frontier JOIN backtest_runs_catalog USING (run_id)
            WHERE rank = 1 AND month = '{MONTHS[-1]}' AND run_id IN ({NEWEST.format(artifact="frontier", strategy=GRID)})""",
    )
    assert sorted(tuple(row[name] for name in flags[0]) for row in shown) == sorted(
        tuple(row.values()) for row in flags
    )


def test_two_policies_side_by_side(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    window.go("policies")
    page = window.page
    page.get_by_label("Where").select_option(MONTHS[-1])
    page.get_by_label("A", exact=True).select_option(label=next(iter(_options(page, "stop -10%, take profit +50%"))))
    page.get_by_label("B", exact=True).select_option(label=next(iter(_options(page, "stop -20%, take profit +50%"))))
    window.settle()
    differing = window.table("Parameters that differ").locator("tbody tr").all_inner_texts()
    assert [text.split("\t") for text in differing] == [["fixed stop.stop pct", "10%", "20%"]]
    page.get_by_label("B", exact=True).select_option(label=next(iter(_options(page, "stop -10%, take profit +50%"))))
    window.settle()
    assert page.get_by_text("The same parameters.").is_visible()
    assert window.table("Over the same calls").locator("tbody tr").count() > 8


def test_two_policies_differ_by_what_each_made_of_the_calls_that_both_have(
    open_window: OpenWindow, market: Home, tmp_path: Path
) -> None:
    """A policy that was replayed in one month more is compared without that month."""
    home = Home(Settings(home=tmp_path))
    shutil.copytree(market.runs.folder, home.runs.folder)
    params = '{"kind":"time_stop","max_hold_ms":3600000}'
    trades = artifact_rows(
        "trades",
        3,
        policy_id=["time_1h"] * 3,
        call_id=[f"new {i}" for i in range(3)],
        realized_return_bps=[90_000.0] * 3,
    )
    summary = artifact_rows("summary", 1, policy_id=["time_1h"], policy_params=[params])
    tables = {"alerts": artifact_rows("alerts", 3), "summary": summary, "trades": trades}
    commit_run(home.runs.folder, "2024-04", tables=tables, run_type="policy")
    sync(home.catalog)
    window = open_window(write_dashboard(home))
    window.go("policies")
    page = window.page
    page.get_by_label("A", exact=True).select_option(label="leave after 1 h")
    page.get_by_label("B", exact=True).select_option(
        index=0 if page.get_by_label("A", exact=True).input_value() != "0" else 1
    )
    window.settle()
    other = page.get_by_label("B", exact=True).evaluate("s => s.selectedOptions[0].textContent")
    card = page.locator(".card", has=page.locator("h2", has_text="On the calls that both have"))
    (found,) = ask(
        home,
        """WITH mine AS (SELECT DISTINCT policy_id, call_id, realized_return_bps AS r FROM trades WHERE scheme IS NULL)
           SELECT count(*) AS n, avg(b.r - a.r) AS gap FROM mine a JOIN mine b USING (call_id)
           WHERE a.policy_id = 'time_1h' AND b.policy_id = (SELECT policy_id FROM summary WHERE policy_params = $params LIMIT 1)""".replace(
            "$params", _params_of(window, other)
        ),
    )
    tiles = card.locator(".tile b").all_inner_texts()
    assert tiles[0] == f"{found['n']:,}" == str(len(MONTHS) * (CALLS_PER_MONTH - 1))
    assert float(tiles[3].replace(",", "")) == pytest.approx(found["gap"], abs=0.051)
    assert "95%: " in card.inner_text()


def _params_of(window: Window, words: str) -> str:
    """The parameters of a policy, as SQL."""
    policy = "JSON.parse(document.getElementById('data').textContent).policy"
    params = window.page.evaluate(f"w => JSON.stringify({policy}.params[{policy}.words.indexOf(w)])", words)
    return "'" + params.replace("'", "''") + "'"


def test_two_runs_side_by_side(open_window: OpenWindow, page_file: Path, market: Home) -> None:
    window = open_window(page_file)
    window.go("policies")
    page = window.page
    labels = page.get_by_label("Run A").locator("option").all_inner_texts()
    assert len(labels) == 4 * len(MONTHS)
    first, last = (
        next(text for text in labels if text.startswith(f"{month} full")) for month in (MONTHS[0], MONTHS[-1])
    )
    page.get_by_label("Run A").select_option(label=first)
    page.get_by_label("Run B").select_option(label=last)
    window.settle()
    differing = [
        row.split("\t")
        for row in window.table("Origin and parameters that differ").locator("tbody tr").all_inner_texts()
    ]
    assert differing[0] == ["month", MONTHS[0], MONTHS[-1]]
    assert {row[0] for row in differing} <= {
        "month",
        "inputs fingerprint",
        "calls",
        "calls excluded",
        "git commit",
        "git dirty",
    }
    table = window.table("Values of the runs")
    expected = ask(
        market,
        f"""SELECT avg(hit_2x::INT) AS rate FROM paths JOIN backtest_runs_catalog USING (run_id)
            WHERE month IN ('{MONTHS[0]}', '{MONTHS[-1]}') GROUP BY month ORDER BY month""",
    )
    cells = table.locator("[data-column=hit_2x_rate]").evaluate_all("cells => cells.map(c => Number(c.dataset.value))")
    assert cells == [row["rate"] for row in expected]
    page.get_by_label("Run B").select_option(
        label=next(text for text in labels if text.startswith(f"{MONTHS[0]} v1-baseline"))
    )
    window.settle()
    assert ["kind", "full", "v1-baseline"] in [
        row.split("\t")
        for row in window.table("Origin and parameters that differ").locator("tbody tr").all_inner_texts()
    ]
    page.get_by_label("Run B").select_option(label=first)
    window.settle()
    assert page.get_by_text("The same run.").is_visible()


def test_runs_that_are_lost_are_named(open_window: OpenWindow, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    tables = {"alerts": artifact_rows("alerts", 2), "paths": artifact_rows("paths", 2, interval=["5m"] * 2)}
    lost = commit_run(home.runs.folder, tables=tables, created_at="2024-02-01T00:00:00.000Z")
    commit_run(home.runs.folder, tables=tables, created_at="2024-02-02T00:00:00.000Z")
    sync(home.catalog)
    shutil.rmtree(lost)
    window = open_window(write_dashboard(home))
    window.go("policies")
    run_id = lost.name.removeprefix("run_id=")
    assert window.page.get_by_text(f"missing or damaged: 1 run: {run_id} (2024-01).").is_visible()


def test_a_line_breaks_where_months_are_missing(open_window: OpenWindow, market: Home, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    shutil.copytree(market.runs.folder, home.runs.folder, ignore=shutil.ignore_patterns(f"{MONTHS[1]}", "*beef"))
    (home.runs.folder / MONTHS[1]).mkdir()
    sync(home.catalog)
    window = open_window(write_dashboard(home))
    window.go("policies")
    lines = (
        window.page.locator(".chart")
        .first.locator(".mark-line path")
        .evaluate_all("paths => paths.map(p => p.getAttribute('d'))")
    )
    assert len(lines) == 4  # two policies, two stretches each


def _options(page, words: str) -> list[str]:  # type: ignore[no-untyped-def]
    """Labels in the list of policies B that end with these words."""
    texts = page.get_by_label("B", exact=True).locator("option").all_inner_texts()
    return [text for text in texts if text.split(". ", 1)[-1] == words]


def test_legend_months_and_levels_redraw_in_place(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    page = window.page
    window.go("caller", MARKUP)
    card = page.locator(".card", has=page.locator("h2", has_text="Frontier"))
    before = card.locator(".mark-symbol path").count()
    card.get_by_role("button", name="combo").click()
    window.settle()
    page.wait_for_function(
        "n => document.querySelectorAll('.card .legend ~ .chart .mark-symbol path').length < n", arg=before
    )
    card.get_by_label("Month").select_option(MONTHS[0])
    window.settle()
    assert f"Best policies of {MONTHS[0]}" in card.inner_text()
    window.go("call", "0")
    page.get_by_label("Levels of").select_option(label="leave after 1 h")
    window.settle()
    assert page.locator(".chart .mark-text.role-mark text").all_text_contents() == [
        "entry",
        "entry",
    ]  # its halo and itself


def test_dark_follows_the_system_and_the_button(open_window: OpenWindow, page_file: Path) -> None:
    grounds, inks = [], []
    window = open_window(page_file, dark=True)
    window.go("overview")
    button = window.page.locator("#theme")
    for _ in range(2):
        grounds.append(window.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        inks.append(window.page.locator(".chart .role-axis-label text").first.get_attribute("fill"))
        button.click()
        window.settle()
    assert grounds == ["rgb(18, 21, 25)", "rgb(246, 247, 248)"]
    assert inks[0] != inks[1]
    assert button.inner_text() == "Light"  # dark again: the button names what it would do
    window.page.reload()
    window.settle()
    assert window.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_keyboard_reaches_everything(open_window: OpenWindow, page_file: Path) -> None:
    window = open_window(page_file)
    page = window.page
    window.go("overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = []
    for _ in range(15):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert {"Calls lab", "Overview", "Callers", "Errors", "Dark"} <= set(reached)
    page.locator("#nav a", has_text="Callers").focus()
    page.keyboard.press("Enter")
    window.settle("#/callers")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.locator("#nav a[aria-current=page]").inner_text() == "Callers"
    unnamed = "[...document.querySelectorAll('button, select, input, a')].filter(e => !(e.textContent || e.ariaLabel || e.labels?.length)).length"
    assert page.evaluate(unnamed) == 0


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_fault(open_window: OpenWindow, page_file: Path, market: Home, tmp_path: Path, dark: bool) -> None:
    """WCAG 2.1 A and AA: names, roles, keyboard, and the contrast of every text. Of the dark page only the contrast: nothing else differs."""
    window = open_window(page_file, dark=dark)
    seen = 0
    for section, argument in [(name, "") for name in SECTIONS] + [("caller", MARKUP)]:
        window.go(section, argument)
        seen += contrasts(window, dark)
    sheet = open_window(PublicHome(market.path).tearsheet(MARKUP).write(tmp_path / "sheet.html"), dark=dark)
    sheet.page.goto(sheet.address)
    sheet.page.wait_for_function("document.body.dataset.ready")
    assert seen + contrasts(sheet, dark) > 500


def contrasts(window: Window, alone: bool) -> int:
    """Let axe look at what is shown; return of how many elements it found the contrast to be enough."""
    rules = ["color-contrast"] if alone else ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = Axe().run(window.page, options={"runOnly": rules, "resultTypes": ["violations", "passes"]}).response
    assert [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in found["violations"]] == []
    return sum(len(passed["nodes"]) for passed in found["passes"] if passed["id"] == "color-contrast")


def test_no_run_at_all_is_said_kindly(open_window: OpenWindow, tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    sync(home.catalog)
    page_file = write_dashboard(home)
    for width in (1280, 390):
        window = open_window(page_file, width=width)
        for section in SECTIONS:
            window.go(section)
            assert fits(window)
            assert "No " in window.page.locator("main").inner_text()
        window.go("caller", "nobody")
        assert "No such caller" in window.page.locator("main").inner_text()


def test_scripts_have_no_way_to_make_markup() -> None:
    """Text becomes text nodes: nothing that parses markup or code occurs in the scripts written here."""
    scripts = list(Path(write_dashboard.__code__.co_filename).parents[1].glob("*/assets/*.js"))
    assert len(scripts) >= 8
    for path in scripts:
        text = path.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "srcdoc",
        ):
            assert word not in text, path.name
