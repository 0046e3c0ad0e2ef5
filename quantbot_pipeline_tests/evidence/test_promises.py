"""What must be true of the evidence beside its figures: bytes, memory, later months, other kinds of run, poor homes."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.backtest.month import RunFailedError, run_month
from quantbot_pipeline.backtest.provenance import parameters_of
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline_tests.evidence.test_evidence import CONFIG, contents, market
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.naive import Candle

STEP = 5 * MINUTE
ARTIFACTS_OF = ("evidence", "evidence_times", "evidence_costs")

# Of the version before there was evidence.
SET: dict[str, Any] = {
    "interval": "5m",
    "latency_ms": 30_000,
    "policies": [{"kind": "fixed_stop", "stop_pct": 0.1, "take_profit_pct": 0.5}],
    "rolling_months": 2,
    "grid": {"stops": [0.1, 0.2]},
    "constraints": {"min_trades": 3},
}
HASHES = {
    "path-only": ("c7e2dbe4bb35e975", "749d15f04160d2c2"),
    "policy": ("09940ce7ba21202b", "46052b6022386332"),
    "optimization": ("7cd1fb264325d118", "9e2d3792a71cc28a"),
    "full": ("609fb328b497df61", "33249bb778a7bd07"),
    "v1-baseline": ("07735638a2af7b71", "0115b8a18c09c44a"),
    "walk-forward": ("4fa92e4bdc93dcad", "97cde7b795165ac1"),
}


@pytest.mark.parametrize("kind", HASHES)
def test_config_hashes_of_other_kinds_are_what_they_were(kind: str) -> None:
    bounds = (month_start_ms("2024-01"), month_start_ms("2024-02"))
    given = (make_config({"pool_calls": 0}), make_config(SET), make_config(SET | {"evidence": {"fdr": 0.5}}))
    plain, some, same = (parameters_of(KINDS[kind], c, bounds, "2024-01")["config_hash"] for c in given)
    assert (plain, some) == HASHES[kind]
    assert same == some


def test_the_same_bytes_at_any_number_of_threads_and_in_any_order(tmp_path: Path) -> None:
    made = market(8)
    found = {}
    for threads, shuffle in ((1, None), (2, 5), (8, 9)):
        lab = homes.make_home(tmp_path / str(threads), made, threads=threads, shuffle=shuffle)
        found[threads] = contents(homes.run(lab, "evidence", "2024-03", CONFIG))
    assert found[1] == found[2] == found[8]


def test_returns_count_against_the_memory_limit(tmp_path: Path) -> None:
    """16 bytes for each unit and policy, and the copy of the hurdles: past the limit it is one sentence, before any replay."""
    calls = [Call(f"{i:05}", "alice", f"m{i}", JANUARY + i * MINUTE) for i in range(3_000)]
    roomy = homes.make_home(tmp_path, Market("5m", calls, {}))
    tight = Home(roomy.settings.model_copy(update={"memory_limit": "40MB"}))
    with pytest.raises(RunFailedError) as failed:
        homes.run(tight, "evidence", "2024-01", {})
    assert "the evidence of 3,000 calls under 450 policies holds 32 MB of returns" in str(failed.value)
    assert "set QUANTBOT_MEMORY_LIMIT to 44MB or search a smaller grid" in str(failed.value)
    enough = Home(roomy.settings.model_copy(update={"memory_limit": "44MB"}))
    assert homes.artifact(homes.run(enough, "evidence", "2024-01", {}), "evidence") == []


# --- poor homes ---------------------------------------------------------------------------------------------------------


def spread(n: int, mint: str = "") -> list[Call]:
    """Calls of three callers, three hours apart."""
    return [Call(f"c{i:03}", "abc"[i % 3], mint or f"m{i}", JANUARY + i * 3 * HOUR + 7 * MINUTE) for i in range(n)]


def walks(calls: list[Call], moves: tuple[float, ...], candles: int = 60) -> dict[str, list[Candle]]:
    """A token's candles for each call that names it alone."""
    rng = random.Random(1)
    return {c.mint: homes.token(rng, c.alert_ts // STEP * STEP, candles, "5m", moves, gaps=0.0) for c in calls}


def apart(calls: list[Call]) -> dict[str, list[Candle]]:
    """Prices of 1e-300 and of 1, one after the other."""
    return {
        c.mint: [Candle(c.alert_ts // STEP * STEP + i * STEP, *([(1e-300, 1.0)[i // 3 % 2]] * 4)) for i in range(60)]
        for c in calls
    }


def poor(kind: str) -> Market:
    """A market of which there is little to say."""
    calls, plain = spread(60), (1.0, 1.05, 0.95)
    if kind == "one call":
        return Market("5m", calls[:1], walks(calls[:1], plain))
    if kind == "no candles":
        return Market("5m", calls, {})
    if kind == "one token":
        same = spread(60, "m")
        return Market("5m", same, {"m": homes.token(random.Random(2), JANUARY, 3_000, "5m", plain)})
    if kind == "all data_end":
        return Market("5m", calls, walks(calls, plain, candles=5))
    if kind == "prices 1e300 apart":
        return Market("5m", calls, apart(calls))
    later = [
        c._replace(call_id=f"{c.call_id}-later", mint=f"{c.mint}-later", alert_ts=c.alert_ts + 62 * DAY) for c in calls
    ]
    return Market("5m", [*calls, *later], walks([*calls, *later], plain))


@pytest.mark.parametrize(
    "kind", ["one call", "no candles", "one token", "all data_end", "prices 1e300 apart", "a month without calls"]
)
def test_a_poor_home_gives_rows_or_a_sentence(tmp_path: Path, kind: str) -> None:
    lab = homes.make_home(tmp_path, poor(kind))
    month = "2024-03" if kind == "a month without calls" else "2024-01"
    if month == "2024-03":
        assert run_month(lab, "evidence", "2024-02", make_config(CONFIG)) is None
    made = homes.run(lab, "evidence", month, CONFIG)
    rows = [row for name in ARTIFACTS_OF for row in homes.artifact(made, name)]
    assert not any(isinstance(value, float) and not math.isfinite(value) for row in rows for value in row.values())
    said = [row["message"] for row in homes.artifact(made, "errors")]
    assert homes.artifact(made, "evidence") or any("nothing to judge" in text for text in said)
    if kind != "prices 1e300 apart":  # every call there gains without end
        assert all(row["verdict"] != "evidence" for row in homes.artifact(made, "evidence"))
    check_run(made.run_dir)
