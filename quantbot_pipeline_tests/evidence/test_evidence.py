"""The evidence, from files to rows, against the oracle that was written from docs/evidence.md alone."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.backtest.month import MonthResult
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.months import month_start_ms, next_month
from quantbot_pipeline_tests.support import builders, homes
from quantbot_pipeline_tests.support.evidence_oracle import Choice, Oracle
from quantbot_pipeline_tests.support.homes import DAY, HOUR, JANUARY, MINUTE, Call, Market
from quantbot_pipeline_tests.support.reference import canonical

MONTHS = ("2024-01", "2024-02", "2024-03")
LEVELS: dict[str, Any] = {
    "stops": [0.1, 0.3],
    "take_profits": [0.5, None],
    "holds_ms": [15 * MINUTE, HOUR],
    "hold_take_profits": [None, 1.0],
    "activations": [],
    "trails": [],
    "ladders": [],
    "ladder_stops": [],
}
GRID = [
    *({"kind": "fixed_stop", "stop_pct": s, "take_profit_pct": t} for s in (0.1, 0.3) for t in (0.5, None)),
    *({"kind": "time_stop", "max_hold_ms": h, "take_profit_pct": t} for h in (15 * MINUTE, HOUR) for t in (None, 1.0)),
]
SMALL = {
    "hurdle_min_units": 8,
    "hurdle_caller_units": 3,
    "min_units": 8,
    "min_mints": 3,
    "draws": 99,
    "recent_months": 2,
}
CONFIG: dict[str, Any] = {
    "horizon_ms": 2 * HOUR,
    "grid": LEVELS,
    "evidence": SMALL,
    "constraints": {"max_stop_out_rate": 1.0, "min_p95_drawdown_bps": -10_000.0},
}
UP, MIXED, DOWN = (1.0, 1.12, 0.97), (1.0, 1.1, 0.92), (1.0, 0.97, 0.9)
BULL = {"rise": UP, "rise2": UP, "rise3": UP, "few": UP, "lost": MIXED}  # others earn, too: the hurdle is above 0
KINDS = {"rise": UP, "mixed": MIXED, "fall": DOWN, "few": MIXED, "lost": MIXED}


def market(seed: int, kinds: Mapping[str, tuple[float, ...]] = KINDS, months: int = 3) -> Market:
    """Callers of every kind: good, plain, bad, with few calls, and with candles missing; some calls repeat a token.

    The liquidity of every pool is known but for the callers `mixed` and `lost`.
    """
    rng, calls, candles = random.Random(seed), list[Call](), {}
    for caller, moves in kinds.items():
        for i in range(months * (2 if caller == "few" else 13)):
            at = JANUARY + rng.randrange(months * 30) * DAY + rng.randrange(280) * 5 * MINUTE + 123_000
            mint = f"{caller}-{i}"
            if caller != "lost" or rng.random() < 0.8:
                n = rng.choice((4, 30, 60, 60, 60))
                candles[mint] = homes.token(rng, at // (5 * MINUTE) * 5 * MINUTE, n, "5m", moves)
            pool = None if caller == "lost" or mint == "mixed-3" else 1000.0 + 97 * i
            calls.append(Call(f"{caller}-{i}", caller, mint, at, pool))
            if rng.random() < 0.3:
                later = at + rng.choice((0, 10, 40, 119, 121)) * MINUTE
                calls.append(Call(f"{caller}-{i}-again", caller, mint, later, pool))
    rng.shuffle(calls)
    return Market("5m", calls, {mint: rows for mint, rows in candles.items() if rows})


def choices_of(lab: Any, months: tuple[str, ...], config: dict[str, Any]) -> dict[tuple[str, int], Choice]:
    """The anchored choices of every month, as walk-forward runs have them."""
    place = {canonical(policy): i for i, policy in enumerate(GRID)}
    found: dict[tuple[str, int], Choice] = {}
    for i, month in enumerate(months):
        for row in homes.artifact(homes.run(lab, "walk-forward", month, config), "walk_forward"):
            if row["scheme"] == "anchored":
                chosen = None if row["policy_params"] is None else place[row["policy_params"]]
                found[row["caller_name"], i] = chosen, row["train_calls"]
    return found


def oracle(made: Market, lab: Any, months: tuple[str, ...], config: dict[str, Any]) -> Oracle:
    bounds = [*map(month_start_ms, months), month_start_ms(next_month(months[-1]))]
    return Oracle(made, bounds, GRID, config, choices_of(lab, months, config))


def compare(made: MonthResult, wanted: Oracle) -> None:
    """Hold the three artifacts against the oracle."""
    rows = wanted.rows()
    found = {row["caller_name"]: row for row in homes.artifact(made, "evidence")}
    assert list(found) == wanted.names
    for name, row in found.items():
        for column, value in row.items():
            if column not in ("run_id", "caller_name"):
                same(value, rows[name][column], f"{name}.{column}")
        for artifact in ("times", "costs"):
            mine = [r for r in homes.artifact(made, f"evidence_{artifact}") if r["caller_name"] == name]
            theirs = rows[name][f"_{artifact}"]
            assert len(mine) == len(theirs), (name, artifact)
            for got, want in zip(mine, theirs, strict=True):
                for column, value in want.items():
                    same(got[column], value, f"{name}.{artifact}.{column} at {want}")


def same(got: Any, want: Any, where: str) -> None:
    if isinstance(want, float) and got is not None:
        assert got == pytest.approx(want, rel=1e-9, abs=1e-7), where
    else:
        assert got == want, where


VARIANTS: list[dict[str, Any]] = [
    {},
    {"entry": "close", "evidence": SMALL | {"missing_lost": False, "cap": 0.5, "fdr": 0.9}},
    {"latency_ms": 0, "intrabar": "optimistic", "evidence": SMALL | {"control": ["mixed", "fall"], "seed": 7}},
    {"evidence": SMALL | {"hurdle_min_units": 3, "hurdle_months": 1, "edge": 0.2, "none_alpha": 0.9, "fdr": 1.0}},
]


@pytest.mark.parametrize("seed", range(len(VARIANTS)))
def test_every_figure_is_that_of_the_oracle(tmp_path: Path, seed: int) -> None:
    made, config = market(seed, BULL if seed % 2 else KINDS), CONFIG | VARIANTS[seed]
    lab = homes.make_home(tmp_path, made)
    result = homes.run(lab, "evidence", MONTHS[-1], config)
    compare(result, oracle(made, lab, MONTHS, config))
    rows = homes.artifact(result, "evidence")
    assert {row["break_even_usd"] is None for row in rows} == {True, False}
    assert any(row["e_value"] != row["e_zero"] for row in rows) == (seed % 2 == 1)
    # The walk-forward runs that the oracle asked for now lend their choices.
    again = homes.run(lab, "evidence", MONTHS[-1], config)
    for artifact in ("evidence", "evidence_times", "evidence_costs"):
        assert homes.content(again, artifact) == homes.content(result, artifact)


def contents(made: MonthResult) -> list[str]:
    return [homes.content(made, name) for name in ("evidence", "evidence_times", "evidence_costs")]


def test_later_months_threads_order_and_a_cache_change_nothing(tmp_path: Path) -> None:
    whole = market(5)
    early = whole._replace(calls=[c for c in whole.calls if c.alert_ts < month_start_ms("2024-03")])
    first = homes.run(homes.make_home(tmp_path / "a", early), "evidence", "2024-02", CONFIG)
    lab = homes.make_home(tmp_path / "b", whole, threads=2, shuffle=3)
    assert contents(homes.run(lab, "evidence", "2024-02", CONFIG)) == contents(first)
    alone, cache = homes.run(lab, "evidence", "2024-03", CONFIG), dict[tuple[str, ...], Any]()
    for month in MONTHS:
        made = homes.run(lab, "evidence", month, CONFIG, cache)
    assert contents(made) == contents(alone)


@pytest.mark.parametrize("held", [False, True])
def test_a_grid_in_parts_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    """Months that are held need no replay again, however small a part of the grid is; those that do not fit are replayed."""
    from quantbot_pipeline.replay import results

    made = market(6)
    lab = homes.make_home(tmp_path, made)
    whole = contents(homes.run(lab, "evidence", "2024-03", CONFIG))
    limit, cache = lab.settings.memory_bytes, dict[tuple[str, ...], Any]()

    def most(calls: int, policies: int) -> int:
        return 0 if held and calls < len(made.calls) else policies * limit // 7

    monkeypatch.setattr(results, "outcome_bytes", most)
    for month in MONTHS:
        result = homes.run(lab, "evidence", month, CONFIG, cache)
    assert contents(result) == whole
    assert sum(key[0] == "grid" for key in cache) == (len(MONTHS) if held else 0)


def test_a_cache_lends_nothing_of_inputs_that_changed(tmp_path: Path) -> None:
    made, cache = market(6, months=2), dict[tuple[str, ...], Any]()
    lab = homes.make_home(tmp_path, made)
    before = contents(homes.run(lab, "evidence", "2024-02", CONFIG, cache))
    keys = set(cache)
    first = next(iter(made.candles))
    rows = [builders.candle(first, *candle._replace(high=2 * candle.high)) for candle in made.candles[first]]
    ingest_candles([builders.write_parquet(tmp_path / "again.parquet", rows)], lab.candles, "5m")
    alone = contents(homes.run(lab, "evidence", "2024-02", CONFIG))
    assert contents(homes.run(lab, "evidence", "2024-02", CONFIG, cache)) == alone != before
    for kind in ("grid", "hurdle", "delayed", "plan"):  # what the change made useless is gone
        assert len({key for key in cache if key[0] == kind}) == len({key for key in keys if key[0] == kind}), kind


def test_a_repeat_changes_only_calls_and_a_rival_moves_nothing_of_ones_own(tmp_path: Path) -> None:
    made = market(7)
    before = homes.artifact(homes.run(homes.make_home(tmp_path / "a", made), "evidence", "2024-03", CONFIG), "evidence")
    one = next(c for c in made.calls if c.caller == "rise" and not c.call_id.endswith("again"))
    repeat = one._replace(call_id="zz-repeat", alert_ts=one.alert_ts + 1)
    home = homes.make_home(tmp_path / "b", made._replace(calls=[*made.calls, repeat]))
    after = homes.artifact(homes.run(home, "evidence", "2024-03", CONFIG), "evidence")
    for old, new in zip(before, after, strict=True):
        calls = old["calls"] + (old["caller_name"] == "rise")
        assert {**new, "run_id": ""} == {**old, "run_id": "", "calls": calls}
    fewer = made._replace(calls=[c for c in made.calls if c.caller != "fall"])
    rest = homes.artifact(homes.run(homes.make_home(tmp_path / "c", fewer), "evidence", "2024-03", CONFIG), "evidence")
    for new in rest:
        old = next(row for row in before if row["caller_name"] == new["caller_name"])
        assert new["spa_p"] == old["spa_p"]


def test_nothing_to_judge_is_a_sentence(tmp_path: Path) -> None:
    """One call, no candles at all, and a month whose windows are open: no row or a row without NaN, never a traceback."""
    bare = Market("5m", [Call("one", "alice", "gone", JANUARY + DAY)], {})
    made = homes.run(homes.make_home(tmp_path / "a", bare), "evidence", "2024-01", CONFIG)
    assert homes.artifact(made, "evidence") == []
    assert "nothing to judge" in homes.artifact(made, "errors")[-1]["message"]
    rng = random.Random(1)
    first, later = JANUARY + DAY, JANUARY + 3 * DAY
    tokens = {name: homes.token(rng, at, 40, "5m", UP) for name, at in (("m", first), ("n", later))}
    calls = [Call("1", "alice", "m", first + MINUTE), Call("2", "bob", "n", later + MINUTE)]
    lab = homes.make_home(tmp_path / "b", Market("5m", calls, tokens))
    rows = homes.artifact(homes.run(lab, "evidence", "2024-01", CONFIG), "evidence")
    assert [(row["caller_name"], row["verdict"], row["flags"]) for row in rows if row["units"]] != []
    assert all(row["verdict"] == "inconclusive" for row in rows)


def test_liquidity_is_an_input_of_the_evidence_alone(tmp_path: Path) -> None:
    told = market(3, months=2)
    bare = told._replace(calls=[call._replace(liquidity=None) for call in told.calls])
    with_it, without = homes.make_home(tmp_path / "a", told), homes.make_home(tmp_path / "b", bare)

    def fingerprints(kind: str) -> tuple[str, str]:
        made = (homes.run(lab, kind, "2024-02", CONFIG) for lab in (with_it, without))
        one, other = (result.manifest.dataset.fingerprint for result in made)
        return one, other

    for kind in ("walk-forward", "path-only"):
        assert len(set(fingerprints(kind))) == 1, kind
    assert len(set(fingerprints("evidence"))) == 2
