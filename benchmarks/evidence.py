"""How often the evidence claims callers without an edge and how often those with one, and what it costs.

Belongs here: worlds whose edges are known, looked at month after month. Does not: what evidence is; that is docs/evidence.md.
The monthly choice of a world is the policy with the largest growth of an account that stakes 4 % of its cash on every call;
where none grew, it is to stay out.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measuring
from benchmarks.backfill import COPY_MONTHS, write_market
from quantbot_pipeline.evidence.hurdle import hurdles
from quantbot_pipeline.evidence.judging import Case, Delayed, Judged, judge
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.evidence.units import Calls, find_units
from quantbot_pipeline.replay import kernel, results
from quantbot_pipeline.replay.compile import CompiledPolicies, compile_policies
from quantbot_pipeline.search.grid import Grid
from quantbot_pipeline.vocabulary import DATA_END

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
STEP, CANDLES = 300_000, 576  # 48 hours of 5m candles
HORIZON, DAY = STEP * CANDLES, 86_400_000
MONTH = 30 * DAY
DAYS, MARKET = 360, 0.05  # of the pool; standard deviation of a day's common move
LOOKS = (3, 6, 9, 12)
CALLERS, SKILLED = 100, 8
TOKENS, ALL_TOKENS = 3_600, 28_800
EDGES = (0.03, 0.06, 0.10, 0.20)
DOUBLERS = (2.0, 3.0, 4.0, 6.0)  # how much more often than others such a caller names a token that doubles
RATES = (15, 30, 60, 120)  # calls a month
COST = 0.004
RULES = EvidenceRules()


class Pool(NamedTuple):
    """Tokens that can be called: what every policy of the grid makes of each, x and ms until it is closed, (T, P).

    day: on which a token can be called; the tokens of a day share their market.
    """

    x: Floats
    lasts: Ints
    doubles: npt.NDArray[np.bool_]
    day: Ints


class Caller(NamedTuple):
    """A caller of a world: calls a month, what every trade earns on top for so many months, and how it prefers doublers."""

    rate: float
    edge: float = 0.0
    prefers: float = 1.0
    months: float = 1_000.0


def run(options: argparse.Namespace) -> None:
    """Print false claims, claimed shares and costs."""
    whole = options.worlds > 2
    begun = time.process_time()
    pool = meme_pool(ALL_TOKENS if whole else TOKENS)
    said = f"{len(pool.x):,} tokens, {pool.x.shape[1]} policies, pool made in {time.process_time() - begun:.0f} CPU-s"
    measuring.title(f"Evidence: {said}, {options.worlds} worlds")
    _false_claims(pool, options.worlds)
    _claimed_shares(pool, options.worlds, RATES if whole else (60,))
    _cost(pool)
    _backfill((6, 12, 24))


# --- the pool -----------------------------------------------------------------------------------------------------------


def meme_pool(tokens: int, seed: int = 11) -> Pool:
    """Return martingale tokens with rugs and pumps without finite variance; the mean of every policy is divided out."""
    rng = np.random.default_rng(seed)
    policies = Grid().multiply()
    compiled = compile_policies(policies)
    x, lasts = np.empty((tokens, len(policies))), np.empty((tokens, len(policies)), np.int64)
    doubles, day = np.empty(tokens, bool), np.arange(tokens) * DAYS // tokens
    market = rng.normal(0, MARKET, DAYS + HORIZON // DAY)
    for first in range(0, tokens, 400):
        some = slice(first, min(first + 400, tokens))
        truth, made = _replayed(rng, market, day[some], compiled, len(policies))
        exits = made.at(np.arange(some.stop - some.start), slice(0, len(policies)))
        gained = exits.px / truth.p0[:, None] * (1 - COST) / (1 + COST) - 1
        x[some] = np.where(exits.reason == DATA_END, -1.0, np.minimum(gained, RULES.cap))
        lasts[some] = exits.ts - truth.entry_ts[:, None]
        doubles[some] = truth.t_multiple[:, 0] >= 0
    return Pool(np.minimum((1 + x) / (1 + x.mean(axis=0)) - 1, RULES.cap), lasts, doubles, day)


def _replayed(
    rng: np.random.Generator, market: Floats, day: Ints, compiled: CompiledPolicies, policies: int
) -> tuple[results.Truth, results.Outcomes]:
    candles, n = _candles(rng, market, day), len(day)
    rows = np.arange(n, dtype=np.int64)
    lo, alert = rows * CANDLES, np.full(n, -1, dtype=np.int64)
    truth, outcomes = results.empty_truth(n), results.empty_outcomes(n, policies)
    rules = results.Rules(interval_ms=STEP, latency_ms=0, horizon_ms=HORIZON)
    exits = kernel.replay(candles, alert, lo, lo + CANDLES, rows, rules, compiled, truth, outcomes)
    return truth, results.with_exits(outcomes, [(rows, exits)])


def _candles(rng: np.random.Generator, market: Floats, day: Ints) -> results.Candles:
    """Return the candles of tokens, flat. A rug loses 95 %; what it loses on average the others gain."""
    n, a_day = len(day), DAY // STEP
    common = market[day[:, None] + np.arange(CANDLES) // a_day] / a_day
    moves = np.exp(rng.normal(0, 0.025, (n, CANDLES)) - 0.025**2 / 2 + common)
    rugs = rng.random((n, CANDLES)) < 0.6 / CANDLES
    pumps = rng.random((n, CANDLES)) < 0.5 / CANDLES
    up = 1 + 0.35 * rng.pareto(1.5, (n, CANDLES))
    fair = 1 - 0.6 / CANDLES * 0.95 + 0.5 / CANDLES * 0.35 / 0.5
    moves = np.where(rugs, 0.05, np.where(pumps, up, moves)) / fair
    close = np.cumprod(moves, axis=1)
    opened = np.concatenate([np.ones((n, 1)), close[:, :-1]], axis=1)
    wick = np.exp(np.abs(rng.normal(0, 0.01, (2, n, CANDLES))))
    high, low = np.maximum(opened, close) * wick[0], np.minimum(opened, close) / wick[1]
    ts = np.tile(np.arange(CANDLES, dtype=np.int64) * STEP, n)
    return results.Candles(ts, *(np.ascontiguousarray(v.ravel()) for v in (opened, high, low, close)))


# --- worlds -------------------------------------------------------------------------------------------------------------


class World:
    """Callers over some months, whose calls draw tokens from a pool."""

    def __init__(self, pool: Pool, callers: Sequence[Caller], months: int, seed: int) -> None:
        rng = np.random.default_rng([seed, len(callers)])
        counts = [rng.poisson(caller.rate * months) for caller in callers]
        self.names = [f"caller-{i:04}" for i in range(len(callers))]
        self.caller = np.repeat(np.arange(len(callers)), counts)
        there = pool.day < months * 30
        weights = [np.where(pool.doubles, caller.prefers, 1.0) * there for caller in callers]
        self.token = np.concatenate(
            [rng.choice(len(pool.x), n, p=w / w.sum()) for n, w in zip(counts, weights, strict=True)]
        )
        self.alert = pool.day[self.token] * DAY + rng.integers(0, DAY, len(self.token))
        ends = np.repeat([caller.months * MONTH for caller in callers], counts)
        self.edge = np.where(self.alert < ends, np.repeat([caller.edge for caller in callers], counts), 0.0)
        self.pool = pool

    def case(self, months: int) -> Case:
        """Return what is judged after so many months."""
        early = np.flatnonzero(self.alert < months * MONTH)
        n, truth = len(early), results.empty_truth(len(early))
        truth.entry_ts[:], truth.observed[:], truth.status[:] = self.alert[early], HORIZON, 0
        month = self.alert[early] // MONTH
        calls = Calls(self.caller[early], np.arange(n), month, self.alert[early], np.arange(n), truth)
        units = find_units(calls, 0, HORIZON)
        units = units.of(units.resolved)
        own = early[units.row]
        x = np.clip(self.pool.x[self.token[own]] + self.edge[own, None], -1, RULES.cap).T.copy()
        closed = units.entry + self.pool.lasts[self.token[own]].T
        starts = [m * MONTH for m in range(months)]
        hurdle = hurdles(units, x, starts, range(months), self.names, RULES, HORIZON)
        chosen, idle = _chosen(units.caller, units.month, units.entry, x, months)
        traded = x[np.maximum(chosen, 0), np.arange(len(chosen))]
        nobody = np.zeros(len(self.names), np.int64)
        return Case(
            names=self.names,
            units=units,
            closed=closed,
            x=x,
            hurdle=hurdle,
            chosen=chosen,
            idle=idle,
            gross=1 + traded,
            liquidity=np.full(len(chosen), np.nan),
            hits=x[0][:, None] >= np.array([1, 2, 3]),
            calls=np.bincount(calls.caller, minlength=len(self.names)),
            unresolved=nobody,
            calendar=np.arange(months),
            text_order=np.arange(len(x)),
            ends=(units.caller, np.full(len(chosen), HORIZON), np.zeros(len(chosen), int)),
            delayed={0: Delayed(np.ones(len(chosen), bool), traded, units.entry)},
            latency_ms=0,
            horizon_ms=HORIZON,
            cost=0.0,
        )


def _chosen(caller: Ints, month: Ints, entry: Ints, x: Floats, months: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return each unit's monthly choice, and whether it is to stay out: the best growth on the caller's earlier calls.

    Ten calls that are over make a choice. Where no policy grew, the choice is to stay out, as under the constraints of a search.
    """
    chosen, growth = np.full(len(caller), -1), np.log1p(0.04 * x)
    idle = np.zeros(len(caller), bool)
    for c in np.unique(caller):
        own = np.flatnonzero(caller == c)
        grown = np.cumsum(growth[:, own], axis=1)
        seen = np.searchsorted(entry[own] + HORIZON, np.arange(months) * MONTH, side="right")
        for m in np.flatnonzero(seen >= 10).tolist():
            best = int(grown[:, seen[m] - 1].argmax())
            if grown[best, seen[m] - 1] > 0:
                chosen[own[month[own] == m]] = best
            else:
                idle[own[month[own] == m]] = True
    return chosen, idle


# --- what is measured -----------------------------------------------------------------------------------------------------


def _looks(world: World, looks: Sequence[int], rules: EvidenceRules = RULES) -> Iterator[tuple[Case, Judged]]:
    for months in looks:
        case = world.case(months)
        yield case, judge(case, rules)


def _false_claims(pool: Pool, worlds: int) -> None:
    """Callers without an edge that each judge calls good: at the last look, and at any of four."""
    last, ever = Counter[str](), Counter[str]()
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        world = World(pool, [Caller(rate) for rate in rng.uniform(5, 100, CALLERS)], LOOKS[-1], seed)
        blamed: dict[str, set[str]] = {}
        for case, judged in _looks(world, LOOKS):
            now = _blamed(case, judged)
            for judge_, names in now.items():
                blamed[judge_] = blamed.get(judge_, set()) | names
        last.update({judge_: len(names) for judge_, names in now.items()})
        ever.update({judge_: len(names) for judge_, names in blamed.items()})
    n = worlds * CALLERS
    measuring.table(
        (
            f"{n:,} callers without an edge, 5 to 100 calls a month, 12 months",
            "false at one look, %",
            f"ever ({len(LOOKS)} looks), %",
        ),
        [(judge_, f"{100 * last[judge_] / n:.1f}", f"{100 * ever[judge_] / n:.1f}") for judge_ in blamed],
    )


def _blamed(case: Case, judged: Judged) -> dict[str, set[str]]:
    """Return whom each judge claims."""
    found: dict[str, set[str]] = {
        "verdict": set(),
        "e_value >= 20": set(),
        "best of the grid, t test": set(),
        "spa_p <= 0.05": set(),
    }
    for row in judged.evidence:
        name, own = row["caller_name"], case.units.caller == case.names.index(row["caller_name"])
        x = case.x[:, own]
        t = (
            x.mean(axis=1) / np.maximum(x.std(axis=1, ddof=1), 1e-12) * np.sqrt(x.shape[1])
            if x.shape[1] > 1
            else np.zeros(1)
        )
        claims = (row["verdict"] == "evidence", row["e_value"] >= 20, t.max() > 1.645, (row["spa_p"] or 1.0) <= 0.05)
        for names, claimed in zip(found.values(), claims, strict=True):
            if claimed:
                names.add(name)
    return found


def _claimed_shares(pool: Pool, worlds: int, rates: Sequence[int]) -> None:
    """Of callers with an edge, 8 among 100: which share is claimed, by edge, calls a month and months."""
    step = 1 if len(rates) > 1 else 2
    kinds = [(f"every rule {edge:+.0%} a call", {"edge": edge}) for edge in EDGES[step - 1 :: step]]
    kinds += [(f"doublers {k:g}x as often", {"prefers": k}) for k in DOUBLERS[step - 1 :: step]]
    quick = EvidenceRules(draws=2)  # the bootstrap stands beside the verdict
    looks, rows, false, judged_callers = (3, 6, 12), [], 0, 0
    for words, how in kinds:
        cells = [words]
        for rate in rates:
            claimed = Counter[int]()
            for seed in range(worlds):
                rng = np.random.default_rng(1000 + seed)
                others = [Caller(float(r)) for r in rng.uniform(5, 100, CALLERS - SKILLED)]
                world = World(pool, [*(Caller(rate, **how) for _ in range(SKILLED)), *others], looks[-1], 1000 + seed)
                for look, (_, judged) in zip(looks, _looks(world, looks, quick), strict=True):
                    names = [r["caller_name"] for r in judged.evidence if r["verdict"] == "evidence"]
                    good = sum(name in world.names[:SKILLED] for name in names)
                    claimed[look] += good
                    if look == looks[-1]:
                        false, judged_callers = false + len(names) - good, judged_callers + CALLERS - SKILLED
            cells.append(", ".join(f"{claimed[look] / SKILLED / worlds:.2f}" for look in looks))
        rows.append(cells)
    print()
    measuring.table(("claimed at 3, 6, 12 months", *(f"{rate} calls a month" for rate in rates)), rows)
    print(f"false claims in these worlds: {false} of {judged_callers:,}")


def _cost(pool: Pool) -> None:
    """CPU seconds of one month's judgement beyond the replay."""
    callers, months = 100, 12
    world = World(pool, [Caller(10_000 / callers / months)] * callers, months, 5)
    world.case(months)
    spent = {"units, hurdles, choices": 0.0, "accounts, bootstrap, intervals, rates": 0.0}
    for first in (True, False):
        marks = [time.process_time()]
        case = world.case(months)
        marks.append(time.process_time())
        judge(case, RULES)
        marks.append(time.process_time())
        if not first:
            spent = dict(zip(spent, np.diff(marks).tolist(), strict=True))
    print()
    measuring.table(
        (f"{callers} callers x {len(case.x)} policies x {len(case.units.row):,} units", "CPU s"),
        [(name, f"{seconds:.2f}") for name, seconds in spent.items()],
    )


def _backfill(lengths: Sequence[int]) -> None:
    """CPU seconds of a backfill of the sample market, all months sharing what they remember."""
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.config import BacktestConfig
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.settings import Settings

    rows = []
    with tempfile.TemporaryDirectory(prefix="quantbot-bench-") as folder:
        lab = Home(Settings(home=Path(folder) / "home"))
        lab.path.mkdir()
        months = write_market(lab, -(-max(lengths) // COPY_MONTHS))
        run_month(lab, "evidence", months[0], BacktestConfig())  # loads the engine
        for n in lengths:
            spent, cache = [], dict[tuple[str, ...], object]()
            for month in months[:n]:
                mark = time.process_time()
                run_month(lab, "evidence", month, BacktestConfig(), cache=cache)
                spent.append(time.process_time() - mark)
            rows.append((f"{n} months", *(f"{v:.1f}" for v in (sum(spent), spent[0], spent[n // 2], spent[-1]))))
    print()
    measuring.table(("backfill of evidence, sample market", "CPU s", "first month", "middle", "last"), rows)
