"""Numbers and rows that a month shows in the Dagster UI: against the artifact, and what Dagster can hold."""

import math
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.monitoring.highlights import TABLES, highlights
from quantbot_pipeline_tests.support.builders import artifact_rows

FRONTIER = artifact_rows(
    "frontier", 5, caller_name=["__all__", "a", "a", "b", "c"], rank=[1, 1, 2, 1, 1], meets_constraints=[True, False, False, True, True],
    objective_score=[9.0, 99.0, 1.0, 5.0, 7.0], median_return_bps=[4.0, 90.0, 0.0, 2.0, 3.0], stop_out_rate=[0.25, 0.0, 0.0, 0.5, 0.1],
    data_end_share=[0.5, 0.2, 0.9, 0.3, 0.0], stressed_avg_return_bps=[-3.0, 1.0, 1.0, 1.0, 1.0],
)  # fmt: skip  # a table: what belongs together stands on one line


def test_a_frontier_counts_callers_and_ranks_the_feasible_first() -> None:
    numbers, shown = highlights("frontier", FRONTIER)
    assert numbers == {
        "callers": 3, "feasible_callers": 2, "all_objective_score": 9.0, "all_median_return_bps": 4.0,
        "all_stop_out_rate": 0.25, "callers_data_end": 1, "all_data_end_share": 0.5, "all_stressed_avg_return_bps": -3.0,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert [row["caller_name"] for row in shown] == ["c", "b", "a"]
    assert list(shown[0]) == ["caller_name", "trades", "score", "feasible", "policy_id"]


def test_a_walk_forward_shows_promise_and_result() -> None:
    rows = artifact_rows(
        "walk_forward", 4, caller_name=["__all__", "__all__", "a", "b"], scheme=["anchored", "rolling", "anchored", "anchored"],
        in_sample_avg_return_bps=[1.0, 2.0, 3.0, None], out_of_sample_avg_return_bps=[4.0, 5.0, 6.0, None],
        hold_avg_return_bps=[7.0, 8.0, 9.0, None], out_of_sample_trades=[10, 10, 4, 0],
        out_of_sample_data_end_share=[0.5, 0.1, 0.1, None], out_of_sample_stressed_avg_return_bps=[-8.0, 1.0, 1.0, None],
    )  # fmt: skip  # a table: what belongs together stands on one line
    numbers, shown = highlights("walk_forward", rows)
    assert numbers == {
        "all_in_sample_avg_return_bps": 1.0, "all_out_of_sample_avg_return_bps": 4.0,
        "all_hold_avg_return_bps": 7.0, "all_out_of_sample_trades": 10, "all_out_of_sample_data_end_share": 0.5,
        "all_out_of_sample_stressed_avg_return_bps": -8.0,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert [row["caller_name"] for row in shown] == ["a"]  # b traded nothing


def test_what_was_tuned_stands_beside_its_verdict_and_the_grid() -> None:
    rows = artifact_rows(
        "tuned", 4, caller_name=["__all__", "a", "b", "a"], scheme=["anchored", "anchored", "anchored", "rolling"],
        promise_bps=[9.0, 8.0, None, 7.0], plateau_bps=[6.0] * 4, out_of_sample_bps=[1.0, 2.0, 0.0, 3.0],
        grid_bps=[4.0, 5.0, 0.0, 6.0], unleaned_bps=[3.5] * 4, hold_bps=[-1.0] * 4, difference_z=[-2.5] * 4, leaning_z=[None] * 4,
        hold_z=[0.5] * 4, verdict=["grid better"] * 4,
    )  # fmt: skip  # a table: what belongs together stands on one line
    numbers, shown = highlights("tuned", rows)
    assert numbers == {
        "all_promise_bps": 9.0, "all_plateau_bps": 6.0, "all_out_of_sample_bps": 1.0, "all_grid_bps": 4.0,
        "all_unleaned_bps": 3.5, "all_hold_bps": -1.0, "difference_z": -2.5, "hold_z": 0.5,
    }  # fmt: skip  # a table: what belongs together stands on one line
    assert [list(row.values()) for row in shown] == [
        ["grid better", "a", 8.0, 2.0, 5.0],
        ["grid better", "b", None, 0.0, 0.0],
    ]


def test_an_equity_curve_shows_where_the_grouped_account_ended() -> None:
    rows = artifact_rows("equity", 3, caller_name=["__all__", "__all__", "a"], equity=[1.0, 2.0, 3.0])
    assert highlights("equity", rows) == ({"accounts": 2, "grouped_final_equity": 2.0}, [])


def test_evidence_shows_its_verdicts_in_order() -> None:
    rows = artifact_rows(
        "evidence", 5, caller_name=["b", "a", "lucky", "sure", "bad"], e_value=[2.0, 2.0, 60.0, 50.123456, 0.1],
        verdict=["inconclusive", "inconclusive", "inconclusive", "evidence", "none"], calls_needed=[None, 40, 10, None, None],
        tested=[True, True, False, True, True], e_threshold=[60.0, 60.0, 70.0, 50.0, 60.0], units=[31, 32, 5, 33, 34],
    )  # fmt: skip  # a table: what belongs together stands on one line
    numbers, shown = highlights("evidence", rows)
    assert numbers == {"claimed": 1.0, "tested": 4.0, "largest_e": 60.0}
    assert [row["caller_name"] for row in shown] == ["sure", "lucky", "a", "b", "bad"]
    assert shown[0] == {
        "caller_name": "sure", "verdict": "evidence", "needed": None, "e": 50.12, "threshold": 50.0, "units": 33,
    }  # fmt: skip  # a table: what belongs together stands on one line


def test_only_verdicts_rank_callers() -> None:
    """No table of the UI is called the best of anything."""
    assert TABLES["evidence"] == "verdicts"
    assert not [name for name in TABLES.values() if "best" in name or "top" in name]


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("rows", [0, 1, 30])
def test_dagster_takes_what_is_shown(artifact: str, rows: int) -> None:
    verdicts = {"verdict": ["none"] * rows} if artifact == "evidence" else {}
    table = artifact_rows(artifact, rows, **verdicts)
    numbers, shown = highlights(artifact, table)
    assert len(shown) <= 10
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in numbers.values())
    dg.AssetMaterialization(
        "a",
        metadata={
            **numbers,
            TABLES.get(artifact, "rows"): dg.MetadataValue.table(
                [dg.TableRecord(row) for row in shown] or [dg.TableRecord({})]
            ),
        },
    )


def test_what_is_not_a_number_does_not_plot() -> None:
    table = FRONTIER.set_column(
        FRONTIER.schema.get_field_index("objective_score"), "objective_score", pa.array([math.nan] * 5)
    )
    assert "all_objective_score" not in highlights("frontier", table)[0]


def test_a_table_fits_the_page() -> None:
    """Some 70 characters beside a policy, which stands last and whole; what else is longer is shortened in the middle."""
    long = "x" * 40 + "end"
    for artifact in TABLES:
        columns = {c: [long] for c in ("mint",) if c in ARTIFACTS[artifact][1].names}
        more: dict[str, list[Any]] = {"rank": [1]} if artifact == "frontier" else {}
        more |= {"scheme": ["anchored"], "out_of_sample_trades": [3]} if artifact == "walk_forward" else {}
        more |= {"verdict": ["inconclusive"]} if artifact == "evidence" else {}
        more |= {"scheme": ["anchored"], "verdict": ["tuned better"]} if artifact == "tuned" else {}
        if artifact == "model_report":
            words = {"target": "drawdown_30", "model": "blend", "scope": "to_date", "money_verdict": "earns more"}
            more |= {name: [word] for name, word in words.items()} | {"verdict": ["no better than the caller's rate"]}
        _, (row,) = highlights(
            artifact, artifact_rows(artifact, 1, caller_name=["sample:fast_follower"], **columns, **more)
        )
        policy = row.pop("policy_id", None)
        assert policy is None or not set(policy) & {"…"}
        assert sum(max(len(name), len(str(value))) for name, value in row.items()) <= 70, (artifact, row)
        assert all(str(row[c]).endswith("end") for c in columns if c in row)
