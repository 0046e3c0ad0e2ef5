"""The pages of predictions, tuning and anomalies: no number without its verdict, what is noise is not drawn, names stay text."""

from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard import anomalies as odd
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.dashboard.page import write_dashboard
from quantbot_pipeline_tests.reports.conftest import OpenWindow
from quantbot_pipeline_tests.reports.test_dashboard_data import rows_of
from quantbot_pipeline_tests.reports.test_dashboard_page import contrasts, fits
from quantbot_pipeline_tests.support.markets import FORMULA, MARKUP
from quantbot_pipeline_tests.support.verdicts import BETTER, MINT, MONTHS, REASON, WORSE, make_judged

VIEWS = (("predictions", ""), ("tuning", ""), ("anomalies", ""), ("anomaly", "0"), ("call", "0"))
CHARTS = {"predictions": 4, "tuning": 1, "anomalies": 0, "anomaly": 1, "call": 1}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_judged(tmp_path_factory.mktemp("judged") / "home")


@pytest.fixture(scope="module")
def file(judged: Home) -> Path:
    return write_dashboard(judged)


@pytest.fixture(scope="module")
def data(judged: Home) -> dict[str, Any]:
    return collect(judged)


def test_the_page_carries_verdicts_months_with_bands_and_what_explains_the_better_alone(data: dict[str, Any]) -> None:
    section = data["predictions"]
    assert section["targets"]["target"] == [BETTER, WORSE]
    assert section["targets"]["verdict"] == ["better", "no better than the base rate"]
    months = [row for row in rows_of(section["months"]) if row["target"] == BETTER]
    assert [row["month"] for row in months] == list(MONTHS)
    assert [row["low"] for row in months] == [None, *(pytest.approx(0.1 * n - 1.96 * 0.05, abs=1e-4) for n in (1, 2))]
    for name in ("calibration", "importance", "dependence"):
        assert set(section[name]["target"]) == {BETTER}, name
    (call,) = data["calls"]
    assert [(p["target"], p["verdict"], p["money_verdict"]) for p in call["predictions"]] == [
        (BETTER, "better", "earns more"),
        (WORSE, "no better than the base rate", "not shown"),
    ]
    assert sorted(row["kind"] for row in call["odd"]) == ["copied_calls", "outage", "price_spike", "regime"]


def test_a_promise_is_held_against_the_calls_it_was_made_for(data: dict[str, Any]) -> None:
    row = next(r for r in rows_of(data["tuning"]["callers"]) if data["names"][r["caller"]] == FORMULA)
    assert (row["promised_bps"], row["earned_bps"]) == (200.0, 150.0), "months 2 and 3 alone had a promise"
    assert row["out_of_sample_bps"] == pytest.approx(100.0), "over all months"
    assert (row["verdict"], row["test_calls"]) == ("grid better", 24)
    assert [s["meaning"].split(":")[-1] for s in rows_of(data["tuning"]["schemes"])] == [
        " do not use tuned levels.",
        " there is no reason to use them.",
    ]


def test_all_anomalies_are_counted_and_the_worst_carried(
    judged: Home, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = data["anomalies"]
    assert section["total"] == sum(section["counts"]["rows"]) == 12
    assert section["rows"]["severity"][:3] == ["error"] * 3
    assert [p is not None for p in section["rows"]["picture"]] == [True] + [False] * 11, "the store has March alone"
    monkeypatch.setattr(odd, "ROWS", 2)
    fewer = collect(judged)["anomalies"]
    assert (fewer["total"], len(fewer["rows"]["kind"])) == (12, 2)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_view_is_drawn_and_nothing_is_at_fault(
    open_window: OpenWindow, file: Path, width: int, dark: bool
) -> None:
    window = open_window(file, width=width, dark=dark)
    for section, argument in VIEWS:
        window.go(section, argument)
        drawn = window.charts()
        assert len(drawn) == CHARTS[section], section
        assert all(chart["marks"] > 0 and chart["width"] > width / 4 for chart in drawn), section
        assert fits(window), section
        assert contrasts(window, alone=dark) > 20, section
        assert window.page.locator("main img, main script, main b b").count() == 0


def test_the_verdict_stands_first_and_noise_is_not_drawn(open_window: OpenWindow, file: Path) -> None:
    window = open_window(file)
    window.go("predictions")
    page = window.page
    first = page.locator("main .card p").first.inner_text()
    assert first.startswith(f"{BETTER}: in months that it had not seen, the model knew more")
    assert first.endswith(f"The calls that it took for {BETTER} earned more than all calls did.")
    page.locator("summary", has_text="What it goes by").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.chart svg').length === 6")
    page.get_by_label("Feature", exact=True).select_option("ret_1h")
    window.settle()
    assert len(window.charts()) == 6
    page.get_by_label("Target", exact=True).select_option(WORSE)
    window.settle()
    text = page.locator("main").inner_text()
    assert "of a model that is not better this would be noise" in text
    assert "To date it is no better than the base rate" in text and "summary" not in text
    assert len(window.charts()) == 3, "an amount has no bins, and nothing explains it"


def test_names_and_reasons_from_outside_are_text(open_window: OpenWindow, file: Path) -> None:
    window = open_window(file)
    page = window.page
    window.go("tuning")
    assert all(name in page.locator("main").inner_text() for name in (MARKUP, FORMULA))
    assert page.locator("td[data-column=verdict] .verdict").all_inner_texts().count("grid better") == 3 + 1
    window.go("anomalies")
    shown = page.locator("main").inner_text()
    assert all(text in shown for text in (MARKUP, MINT, REASON))
    page.get_by_label("Only errors").check()
    assert page.locator("tbody tr").count() > 0
    page.get_by_role("link", name=f"Candles around price spike of {MINT}").click()
    window.settle("#/anomaly/0")
    assert REASON in page.locator("main").inner_text()
    window.go("call", "0")
    shown = page.locator("main").inner_text()
    assert REASON in shown and "no better than the base rate" in shown and "61.0%" in shown
    window.go("anomaly", "7")
    assert "No candles of such an anomaly" in page.locator("main").inner_text()


def test_where_nothing_is_better_the_first_sentence_says_so(open_window: OpenWindow, judged: Home) -> None:
    window = open_window(write_dashboard(judged.between(None, MONTHS[1]), judged.path / "early.html"))
    window.go("predictions")
    assert (
        window.page.locator("main .card p")
        .first.inner_text()
        .startswith("Nothing is predicted better than the share of all calls")
    )
