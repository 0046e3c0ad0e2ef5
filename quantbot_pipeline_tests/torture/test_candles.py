"""Candle files flipped and cut: a run is refused by name, or reads exactly what was there."""

import random
from pathlib import Path

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.market.candle_files import month_file
from quantbot_pipeline.market.candle_reader import plan_slices
from quantbot_pipeline_tests.market.test_candle_reader import LAST, MINTS, make_store, naive, read
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

MONTH = "2024-01"


@pytest.mark.parametrize("rounds", sizes({"flipped": 300, "cut": 50}, {"flipped": 20_000, "cut": 2_000}))
@pytest.mark.parametrize("how", ["flipped", "cut"])
@pytest.mark.parametrize("row_group", [16, 100_000])
def test_a_damaged_store_is_an_error_and_never_a_price(
    tmp_path: Path, row_group: int, how: str, rounds: dict[str, int], tally: Tally
) -> None:
    """Anywhere in the file, its footer included; a bit that is never read (of a volume, say) may be harmless."""
    whole = month_file(make_store(tmp_path, row_group), "5m", MONTH).read_bytes()
    path = month_file(tmp_path / "damaged", "5m", MONTH)
    path.parent.mkdir(parents=True)
    until = dict.fromkeys([*MINTS, "edge"], 0)
    expected = naive(MONTH, until)
    chance = random.Random(row_group)
    refused = wrong = 0
    for _ in range(rounds[how]):
        offset = chance.randrange(len(whole))
        flipped = whole[:offset] + bytes([whole[offset] ^ 1 << chance.randrange(8)]) + whole[offset + 1 :]
        path.write_bytes(flipped if how == "flipped" else whole[:offset])
        try:
            wrong += read(plan_slices(tmp_path / "damaged", "5m", [MONTH], until, LAST), until) != expected
        except InputError as e:
            assert "candles.parquet: the candle store is not readable" in str(e)
            refused += 1
    tally(
        f"Candles {how}, row groups of {row_group}: refused or read right",
        tried=rounds[how],
        detected=refused,
        lost=wrong,
    )
    assert not wrong
    assert refused > rounds[how] / 3
