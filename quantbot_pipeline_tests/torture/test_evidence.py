"""Planted callers, from files to verdicts: without an edge nobody is claimed, and every kind is what the oracle says.

Real ingest, the whole recipe. Worlds of the benchmark, whose edges are known, hold the sentences of docs/evidence.md.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evidence import Caller, World, meme_pool
from quantbot_pipeline.evidence.judging import judge
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline_tests.evidence.test_evidence import CONFIG, UP, compare, oracle
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


# --- every kind of caller, at every month ---------------------------------------------------------------------------------

MONTHS = ("2024-01", "2024-02", "2024-03", "2024-04")
FAIR, BAD = (1.03, 0.97), (1.0, 0.95)
KINDS = {
    **{f"zero-{i}": FAIR for i in range(8)},
    **{f"six-{i}": (1.0305, 0.9725) for i in range(2)},
    **{f"ten-{i}": (1.031, 0.974) for i in range(2)},
    **{f"lucky-{i}": BAD for i in range(2)},
    **{f"few-{i}": UP for i in range(2)},
    "echo": FAIR,
    "loser": BAD,
    "survivor": FAIR,
    "regime": UP,
}


def planted_market(seed: int, kinds: Sequence[str] = tuple(KINDS)) -> Market:
    """Callers of every kind: fair, +6 %, +10 %, one 100x, repeats, few calls, losing, without candles of rugs, changing."""
    rng, calls, candles = random.Random(seed), list[Call](), {}
    for kind in kinds:
        for month in range(len(MONTHS)):
            for k in range(1 if kind.startswith("few") else 7):
                at = JANUARY + (month * 30 + rng.randrange(29)) * DAY + rng.randrange(280) * STEP + MINUTE
                mint, moves = f"{kind}-{month}-{k}", FAIR if kind == "regime" and month > 1 else KINDS[kind]
                rows = homes.token(rng, at // STEP * STEP, rng.choice((5, 28, 40)), "5m", moves)
                if kind.startswith("lucky") and (month, k) == (1, 3):
                    rows += [Candle(rows[-1].ts + (i + 1) * STEP, *(rows[-1].close * 2.0**i,) * 4) for i in range(8)]
                if kind != "survivor" or not rows or rows[-1].close > 0.9 * rows[0].open:
                    candles[mint] = rows
                calls += [
                    Call(f"{mint}-{n}", kind, mint, at + n * 7 * MINUTE, 5_000.0)
                    for n in range(8 if kind == "echo" else 1)
                ]
    rng.shuffle(calls)
    return Market("5m", calls, {mint: rows for mint, rows in candles.items() if rows})


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(2))
def test_every_kind_of_caller_is_what_the_oracle_says_at_every_month(tmp_path: Path, seed: int) -> None:
    made, cache = planted_market(seed), dict[tuple[str, ...], Any]()
    lab = homes.make_home(tmp_path, made)
    assert len(KINDS) == 20
    for last, month in enumerate(MONTHS, 1):
        compare(homes.run(lab, "evidence", month, CONFIG, cache), oracle(made, lab, MONTHS[:last], CONFIG))


# --- worlds of the benchmark ----------------------------------------------------------------------------------------------

LOOKS = (6, 9, 12)
PLANTED = {
    "+3 %, 120 a month": Caller(120, 0.03),
    "+10 %, 30 a month": Caller(30, 0.10),
    "-5 %, 60 a month": Caller(60, -0.05),
    "+10 %, then none": Caller(60, 0.10, months=6.0),
}


@pytest.mark.torture
def test_planted_edges_are_found_in_time() -> None:
    """96 callers without an edge beside one of each kind, the default grid, after 6, 9 and 12 months."""
    rates, rules = random.Random(3), EvidenceRules(draws=2)
    others = [Caller(rates.uniform(5, 100)) for _ in range(96)]
    world = World(meme_pool(3_600), [*PLANTED.values(), *others], LOOKS[-1], 77)
    said: dict[str, list[str]] = {name: [] for name in PLANTED}
    for months in LOOKS:
        rows = {row["caller_name"]: row for row in judge(world.case(months), rules).evidence}
        planted = dict(zip(PLANTED, world.names, strict=False))
        for kind, name in planted.items():
            said[kind].append(rows[name]["verdict"])
        claimed = [name for name, row in rows.items() if row["verdict"] == "evidence"]
        assert len(set(claimed) - set(planted.values())) <= 1
    assert said["+3 %, 120 a month"][1:] == ["evidence", "evidence"]
    assert said["+10 %, 30 a month"] == ["evidence"] * 3
    assert "evidence" not in said["-5 %, 60 a month"]
    assert said["+10 %, then none"][0] == "evidence"
    fading = rows[planted["+10 %, then none"]]
    assert fading["e_recent"] < 1
    assert fading["flags"] == ("fading" if fading["verdict"] == "evidence" else "")
