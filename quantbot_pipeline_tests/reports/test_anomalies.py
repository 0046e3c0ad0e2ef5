"""`quantbot anomalies`, `Home.anomalies()` and what the check, the UI and the notices say: one run, the same rows everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.api import Home
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.monitoring.anomalies import Odd, Told, news_of, read_anomalies, sentence
from quantbot_pipeline.monitoring.highlights import TABLES, highlights
from quantbot_pipeline.orchestration.judging import judge_anomalies
from quantbot_pipeline.reports.anomalies import PRINTED
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import HOSTILE_WITH_NUL, artifact_rows, commit_run

SUBJECTS = ["mint", "<b>O'Brien", "third"]


def _commit(lab: Home, month: str, second: int, severities: list[str]) -> Path:
    n = len(severities)
    rows = artifact_rows(
        "anomalies",
        n,
        kind=["price_spike", "duplicate_series", "gap"][:n],
        severity=severities,
        subject=SUBJECTS[:n],
        subject_type=["mint", "pair", "mint"][:n],
        other_subject=[None, "twin", None][:n],
        from_ts_ms=[3, 2, 1][:n],
        to_ts_ms=[9] * n,
        reason=["A sentence."] * n,
        details=[None] * n,
        calls_touched=[2, 5, 0][:n],
        hits_touched=[1, 0, 0][:n],
    )
    return commit_run(
        lab.runs.folder,
        month,
        tables={"alerts": artifact_rows("alerts", 2), "anomalies": rows},
        run_type="anomalies",
        created_at=f"2024-06-01T00:00:{second:02}.000Z",
    )


@pytest.fixture
def lab(home: Path) -> Home:
    made = Home(home)
    _commit(made, "2024-01", 1, ["info"])  # an older run of the month
    _commit(made, "2024-01", 2, ["warning", "error", "info"])
    _commit(made, "2024-02", 3, ["error"])
    made.sync()
    return made


def test_the_command_and_the_frame_show_the_newest_runs_the_worst_first(lab: Home, quantbot: Quantbot) -> None:
    shown = quantbot("anomalies", "--format", "json").json()
    assert [(row["month"], row["severity"], row["subject"]) for row in shown] == [
        ("2024-02", "error", "mint"),
        ("2024-01", "error", "<b>O'Brien"),
        ("2024-01", "warning", "mint"),
        ("2024-01", "info", "third"),
    ]
    frame = lab.anomalies()
    assert list(frame.columns) == list(shown[0])
    assert frame["subject"].tolist() == [row["subject"] for row in shown]
    assert len(frame.attrs["runs"]) == 2
    table = quantbot("anomalies").out
    assert all(name in table for name in ("calls touched", "A sentence."))
    assert set(PRINTED) <= set(shown[0])
    csv = quantbot("anomalies", "--format", "csv").out
    assert csv.splitlines()[0].split(",") == list(shown[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--severity", "error"), ["mint", "<b>O'Brien"]),
        (("--severity", "warning"), ["mint", "<b>O'Brien", "mint"]),
        (("--kind", "gap"), ["third"]),
        (("--subject", "twin"), ["<b>O'Brien"]),
        (("--to", "2024-01", "--limit", 1), ["<b>O'Brien"]),
        (("--sort", "-calls_touched"), ["<b>O'Brien", "mint", "mint", "third"]),
    ],
)
def test_options_choose_rows(lab: Home, quantbot: Quantbot, options: tuple[Any, ...], expected: list[str]) -> None:
    assert [row["subject"] for row in quantbot("anomalies", *options, "--format", "json").json()] == expected


def test_words_that_do_not_exist_are_named_with_those_that_do(lab: Home, quantbot: Quantbot) -> None:
    assert quantbot("anomalies", "--severity", "fatal").complaint == (
        "--severity 'fatal': unknown; choose one of error, warning, info"
    )
    assert quantbot("anomalies", "--kind", "x").complaint.startswith("--kind 'x': unknown; choose one of price_spike, ")
    with pytest.raises(InputError, match="unknown"):
        lab.anomalies(kind="x")


def test_a_home_without_such_runs_says_how_to_make_them(home: Path, quantbot: Quantbot) -> None:
    Home(home).sync()
    done = quantbot("anomalies")
    assert done.status == 0
    assert "`quantbot backtest anomalies --from MONTH --to MONTH` makes one" in done.err


def test_the_check_fails_for_errors_and_blocks_when_told_to(lab: Home) -> None:
    runs = {made.manifest.month: made.path for made in (lab.run(i) for i in lab.anomalies().attrs["runs"])}
    result = judge_anomalies(lab, runs)
    assert (result.passed, result.severity.value) == (False, "WARN")
    assert result.metadata["months_at_fault"].value == 2
    assert "price_spike of mint: A sentence. 2 calls touched, 1 of them 2x" in str(result.description)
    assert judge_anomalies(lab.changed(quality_blocks=True), runs).severity.value == "ERROR"
    calm = judge_anomalies(lab, {"2024-03": _commit(lab, "2024-03", 9, ["warning", "info"])})
    assert calm.passed


def test_the_web_ui_plots_severities_also_of_a_month_without_a_row() -> None:
    numbers, rows = highlights("anomalies", artifact_rows("anomalies", 0))
    assert (numbers["error_rows"], rows) == (0.0, [])
    made = artifact_rows("anomalies", 3, severity=["info", "error", "warning"], calls_touched=[0, 4, 1])
    numbers, rows = highlights("anomalies", made)
    assert {name: numbers[f"{name}_rows"] for name in ("error", "warning", "info")} == {
        "error": 1,
        "warning": 1,
        "info": 1,
    }
    assert [row["severity"] for row in rows] == ["error", "warning", "info"]
    assert TABLES["anomalies"] == "worst"


def _odd(run_id: str, month: str, *subjects: str) -> Odd:
    row = {
        "kind": "gap",
        "severity": "error",
        "other_subject": None,
        "from_ts_ms": 1,
        "calls_touched": 1,
        "hits_touched": 0,
    }
    return Odd(run_id, month, [row | {"subject": name, "reason": "Odd."} for name in subjects])


def test_each_error_is_told_once_and_the_first_look_is_one_message() -> None:
    told, first = news_of(None, [_odd("r1", "2024-01", "a", "b"), _odd("r2", "2024-02", "a")])
    assert [f.text.split(";")[0] for f in first] == ["3 errors in the inputs of 2 months"]
    told, nothing = news_of(told, [_odd("r3", "2024-01", "a", "b")])
    assert nothing == []
    told, news = news_of(told, [_odd("r4", "2024-01", "a", "c"), _odd("r5", "2024-03", "a")])
    assert [(f.month, f.subject, f.passing) for f in news] == [("2024-01", "c", True), ("2024-03", "a", True)]
    assert Told.model_validate_json(told.model_dump_json()) == told
    assert news_of(None, [_odd("r1", "2024-01")])[1] == []


def test_names_from_outside_are_plain_text_in_what_is_told() -> None:
    for name in HOSTILE_WITH_NUL:
        text = sentence(_odd("r", "2024-01", name).rows[0])
        assert not any(c in text for c in "<>&*`\n\r\x00\x1b")


def test_what_is_told_is_read_from_the_run(lab: Home) -> None:
    odd = read_anomalies(_commit(lab, "2024-05", 10, ["error", "warning", "error"]))
    assert (odd.month, odd.counts) == ("2024-05", {"error": 2, "warning": 1, "info": 0})
    assert json.dumps([row["subject"] for row in odd.errors]) == json.dumps(["mint", "third"])
