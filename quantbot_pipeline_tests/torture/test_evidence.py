"""Callers without an edge, from files to verdicts: real ingest, the default grid, the whole recipe, and nobody is claimed."""

import random
from pathlib import Path

import pytest

from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.naive import Candle
from quantbot_pipeline_tests.support.sizes import sizes

STEP = 5 * MINUTE


def fair_market(callers: int, seed: int) -> Market:
    """Callers that name tokens without an edge, 40 to 60 in three months: as likely up as down, by the same on average."""
    rng, calls, candles = random.Random(seed), list[Call](), {}
    for i in range(callers):
        for k in range(rng.randint(40, 60)):
            at, mint = JANUARY + rng.randrange(88) * DAY + rng.randrange(280) * STEP + MINUTE, f"t{i}-{k}"
            calls.append(Call(f"{i:03}-{k:02}", f"caller-{i:03}", mint, at))
            candles[mint] = fair_token(rng, at // STEP * STEP)
    return Market("5m", calls, candles)


def fair_token(rng: random.Random, begin: int, n: int = 40) -> list[Candle]:
    """A martingale that is +25 % or -20 % at times, and jumps now and then: mostly down, seldom far up."""
    price, made = 1.0, []
    for i in range(n):
        opened = price
        if rng.random() < 0.02:
            price *= 4.0 if rng.random() < 0.2 else 0.25  # 0.2 * 4 + 0.8 * 0.25 = 1
        else:
            price *= rng.choice((1.04, 0.96))
        made.append(Candle(begin + i * STEP, opened, max(opened, price), min(opened, price), price))
    return made


@pytest.mark.parametrize("size", sizes((20, 1), (100, 5)))
def test_files_without_an_edge_are_not_claimed(tmp_path: Path, size: tuple[int, int]) -> None:
    callers, seeds = size
    config = {"horizon_ms": 2 * HOUR, "taker_fee_bps": 0, "slippage_bps": 0, "evidence": {"draws": 99}}
    for seed in range(seeds):
        lab = homes.make_home(tmp_path / str(seed), fair_market(callers, seed))
        rows = homes.artifact(homes.run(lab, "evidence", "2024-03", config), "evidence")
        assert sum(row["tested"] for row in rows) == callers
        assert sum(row["verdict"] == "evidence" for row in rows) <= (1 if callers == 100 else 0)
