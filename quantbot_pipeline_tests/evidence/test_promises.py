"""What must be true of the evidence beside its figures: bytes, memory, later months, other kinds of run, poor homes."""

from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.backtest.month import RunFailedError
from quantbot_pipeline.backtest.provenance import parameters_of
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.specs import KINDS
from quantbot_pipeline_tests.evidence.test_evidence import CONFIG, contents, market
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.homes import JANUARY, MINUTE, Call, Market

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
    given = (make_config({}), make_config(SET), make_config(SET | {"evidence": {"fdr": 0.5}}))
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
