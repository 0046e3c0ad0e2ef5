"""Evidence in plain Python and numpy, written from docs/evidence.md alone: units, accounts, verdicts, tests, rates, costs.

Belongs here: nothing that the package computes; single outcomes come from `replay.naive`, and the monthly choices from the
rows of walk-forward runs. Slow and flat, to be read beside the page.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betainc, betaln
from scipy.stats import norm

from quantbot_pipeline.replay.results import Rules
from quantbot_pipeline_tests.support import homes
from quantbot_pipeline_tests.support.evidence_curves import costs, doubles
from quantbot_pipeline_tests.support.naive import naive_trade, naive_truth, naive_window
from quantbot_pipeline_tests.support.reference import canonical, cost

DAY = 86_400_000
DEFAULTS: dict[str, Any] = {
    "cap": 3.0,
    "hurdle_months": 3,
    "hurdle_min_units": 30,
    "hurdle_caller_units": 10,
    "control": [],
    "fractions": [0.05, 0.1, 0.2, 0.4, 0.8],
    "recent_months": 6,
    "missing_lost": True,
    "edge": 0.03,
    "min_units": 30,
    "min_mints": 5,
    "fdr": 0.10,
    "none_alpha": 0.05,
    "max_missing": 0.05,
    "draws": 1000,
    "seed": 0,
    "stop_pct": 0.5,
}
Choice = tuple[int | None, int]  # position of the policy, train_calls


class Unit(NamedTuple):
    """A unit of section 1. exits: per policy x and the time of its closing."""

    caller: str
    mint: str
    month: int
    entry: int
    window: Any
    resolved: bool
    exits: list[tuple[float, int]]

    @property
    def missing(self) -> bool:
        return self.window is None


class Bet(NamedTuple):
    """A bet of section 3."""

    entry: int
    closed: int
    z: float


def account(bets: Sequence[Bet], fraction: float) -> float:
    """W(f)."""
    cash, opened = 1.0, list[tuple[int, float]]()
    for bet in bets:
        cash += sum(back for closed, back in opened if closed <= bet.entry)
        opened = [(closed, back) for closed, back in opened if closed > bet.entry]
        if cash < 1e12:
            stake = fraction * cash
            cash -= stake
            opened.append((bet.closed, stake * (1 + bet.z)))
    return cash + sum(back for _, back in opened)


class Oracle:
    """The evidence of one month. months: UTC starts up to the judged one and the end of it."""

    def __init__(
        self,
        market: homes.Market,
        months: Sequence[int],
        grid: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
        choices: Mapping[tuple[str, int], Choice],
    ) -> None:
        self.market, self.months, self.grid, self.config, self.choices = market, months, grid, config, choices
        self.rules = DEFAULTS | dict(config.get("evidence", {}))
        self.replay = homes.rules_of(market, config)
        self.horizon, self.c = self.replay.horizon_ms, cost(config)
        self.calls: dict[str, int] = {}
        self._known_hurdles: dict[tuple[str, int, int], float] = {}
        self.units = self._units()
        self.resolved = [u for u in self.units if u.resolved]
        self.names = sorted({u.caller for u in self.resolved}, key=str.encode)

    def x(self, window: Any, policy: Mapping[str, Any], rules: Rules) -> tuple[float, int]:
        trade = naive_trade(window, policy, rules)
        if trade.reason == "data_end":
            return -1.0, trade.exit_ts
        return min(trade.exit_px * (1 - self.c) / (window.p0 * (1 + self.c)) - 1, self.rules["cap"]), trade.exit_ts

    def _units(self) -> list[Unit]:
        found: list[tuple[int, bytes, homes.Call, Any]] = []
        for call in self.market.calls:
            if not self.months[0] <= call.alert_ts < self.months[-1]:
                continue
            window = naive_window(self.market.candles.get(call.mint, []), call.alert_ts, self.replay)
            if window.status == "no_entry":
                continue
            self.calls[call.caller] = self.calls.get(call.caller, 0) + 1
            known = window.status == "included"
            entry = window.entry_ts if known else call.alert_ts + self.replay.latency_ms
            found.append((entry, call.call_id.encode(), call, window if known else None))
        found.sort(key=lambda row: row[:2])
        end = max((w.entry_ts + w.observed for *_, w in found if w is not None), default=-(10**18))
        units: list[Unit] = []
        self.called = {(call.caller, self._month(call.alert_ts)) for *_, call, w in found if w is not None}
        for entry, _, call, seen in found:
            own_window: Any = seen
            if any(u.caller == call.caller and u.mint == call.mint and entry - u.entry < self.horizon for u in units):
                continue
            exits = [
                (-1.0, entry + self.horizon) if own_window is None else self.x(own_window, p, self.replay)
                for p in self.grid
            ]
            month, resolved = self._month(call.alert_ts), entry + self.horizon <= end
            units.append(Unit(call.caller, call.mint, month, entry, own_window, resolved, exits))
        return units

    def _month(self, at: int) -> int:
        return max(i for i, start in enumerate(self.months) if start <= at)

    def hurdle(self, caller: str, month: int, p: int) -> float:
        key = (caller, month, p)
        if key not in self._known_hurdles:
            self._known_hurdles[key] = self._hurdle(*key)
        return self._known_hurdles[key]

    def _hurdle(self, caller: str, month: int, p: int) -> float:
        r = self.rules
        others = [
            u
            for u in self.resolved
            if u.caller != caller
            and (not r["control"] or u.caller in r["control"])
            and not u.missing
            and u.month >= month - r["hurdle_months"]
            and u.entry + self.horizon <= self.months[month]
        ]
        if len(others) < r["hurdle_min_units"]:
            return 0.0
        x = np.array([u.exits[p][0] for u in others])
        a = float(x.mean() - x.std(ddof=1) / math.sqrt(len(x)))
        means = []
        for name in {u.caller for u in others}:
            own = [u.exits[p][0] for u in others if u.caller == name]
            if len(own) >= r["hurdle_caller_units"]:
                means.append(float(np.mean(own)))
        return max(0.0, min(a, float(np.median(means))) if len(means) >= 3 else a)

    def choice(self, unit: Unit) -> Choice:
        there = (unit.caller, unit.month) in self.called
        return self.choices.get((unit.caller, unit.month), (None, 0)) if there else (None, 0)

    def accounts(self, units: Sequence[Unit], *, against: bool = True) -> tuple[list[float], list[float]]:
        """W of every policy and fraction of the family, and of every fraction of the choice."""

        def bet(u: Unit, p: int) -> Bet:
            h = self.hurdle(u.caller, u.month, p) if against else 0.0
            return Bet(u.entry, u.exits[p][1], (1 + u.exits[p][0]) / (1 + h) - 1)

        family = [
            account([bet(u, p) for u in units], f) for p in range(len(self.grid)) for f in self.rules["fractions"]
        ]
        chosen = [(u, p) for u in units if (p := self.choice(u)[0]) is not None]
        return family, [account([bet(u, p) for u, p in chosen], f) for f in self.rules["fractions"]]

    def against_edge(self, units: Sequence[Unit]) -> tuple[list[float], int]:
        bets, edge, cap = [], self.rules["edge"], self.rules["cap"]
        for u in units:
            p, learned = self.choice(u)
            if u.missing or (p is None and learned < 10):
                continue
            x, closed = (0.0, u.entry) if p is None else u.exits[p]
            bets.append(Bet(u.entry, closed, (edge - x) / (cap - edge)))
        return [account(bets, f) for f in self.rules["fractions"]], len(bets)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of evidence.parquet by caller."""
        made = {name: self._row(name) for name in self.names}
        tested = sorted((n for n in self.names if made[n]["tested"]), key=lambda n: (-made[n]["e_value"], n.encode()))
        k, fdr = len(tested), self.rules["fdr"]
        claims = 0
        for i, name in enumerate(tested, 1):
            claims = i if made[name]["e_value"] >= k / (i * fdr) else claims
        for name, row in made.items():
            claimed = name in tested[:claims]
            row["e_threshold"] = (k if row["tested"] else k + 1) / (fdr * (claims if claimed else claims + 1))
            refuted = row["e_none"] >= 1 / self.rules["none_alpha"]
            row["verdict"] = "evidence" if claimed else "none" if refuted else "inconclusive"
            self._finish(row)
        self._rates(made)
        return made

    def _row(self, name: str) -> dict[str, Any]:
        r, own = self.rules, [u for u in self.resolved if u.caller == name]
        known = [u for u in own if not u.missing]
        staked = own if r["missing_lost"] else known
        recent = [u for u in staked if u.month > len(self.months) - 2 - r["recent_months"]]
        (family, choice), (none, bets) = self.accounts(staked), self.against_edge(own)

        def value(pair: tuple[list[float], list[float]]) -> float:
            return float(np.mean(pair[0]) + np.mean(pair[1])) / 2

        mints = len({u.mint for u in known})
        weights = [(w, 0.5 / len(family)) for w in family] + [(w, 0.5 / len(choice)) for w in choice]
        traded = [(u, p) for u in known if (p := self.choice(u)[0]) is not None]
        return {
            "e_value": value((family, choice)),
            "e_zero": value(self.accounts(staked, against=False)),
            "e_known": value(self.accounts(known)),
            "e_family": float(np.mean(family)),
            "e_choice": float(np.mean(choice)),
            "e_none": float(np.mean(none)),
            "e_recent": value(self.accounts(recent)),
            "calls": self.calls[name],
            "units": len(known),
            "mints": mints,
            "missing_units": len(own) - len(known),
            "unresolved_units": sum(u.caller == name and not u.resolved for u in self.units),
            "tested": len(known) >= r["min_units"] and mints >= r["min_mints"],
            "_growth": (weights, len(staked)),
            "_none": ([(w, 1 / len(none)) for w in none], bets),
            **self._interval(traded),
            **self._support(name, known),
            **costs(self, traded),
            **doubles(self, name),
        }

    def _finish(self, row: dict[str, Any]) -> None:
        """Flags and calls_needed."""
        r, found = self.rules, []
        flags = {
            "few_calls": row["units"] < r["min_units"],
            "few_mints": row["mints"] < r["min_mints"],
            "missing_data": row["missing_units"] > r["max_missing"] * (row["units"] + row["missing_units"]),
            "fading": row["verdict"] == "evidence" and row["e_recent"] < 1,
        }
        row["flags"] = ",".join(flag for flag, raised in flags.items() if raised)

        def growth(weights: Sequence[tuple[float, float]], n: int) -> float:
            total = sum(v * w for w, v in weights)
            return sum(v * w * math.log(max(w, 1e-300)) for w, v in weights) / total / n if n and total else 0.0

        weights, n = row.pop("_growth")
        g = growth(weights, n)
        if g > 0 and row["e_value"] > 1:
            found.append((max(math.log(row["e_threshold"] / row["e_value"]) / g, r["min_units"] - n, 1), "evidence"))
        g = growth(*row.pop("_none"))
        if g > 0:
            found.append((max(math.log(1 / (r["none_alpha"] * row["e_none"])) / g, 1), "none"))
        found = [pair for pair in found if pair[0] <= 100_000] if row["verdict"] == "inconclusive" else []
        row["calls_needed"] = row["towards"] = None
        if found:
            v, row["towards"] = min(found, key=lambda pair: pair[0])
            step = 10 ** max(0, math.floor(math.log10(v)) - 1)
            row["calls_needed"] = math.ceil(v / step) * step

    def _interval(self, traded: Sequence[tuple[Unit, int]]) -> dict[str, Any]:
        names, cap, fractions = (
            ("choice_mean_bps", "choice_low_bps", "choice_high_bps"),
            self.rules["cap"],
            self.rules["fractions"],
        )
        if not traded:
            return dict.fromkeys(names) | {"choice_units": 0}

        def refuted(z: Any) -> bool:
            bets = [Bet(u.entry, u.exits[p][1], z(u.exits[p][0])) for u, p in traded]
            return float(np.mean([account(bets, f) for f in fractions])) >= 40

        low, high = (-1.0, cap), (-1.0, cap)
        for _ in range(45):  # a mean of -1 cannot be divided by
            m = sum(low) / 2
            low = (m, low[1]) if refuted(lambda x, m=m: (1 + x) / (1 + m) - 1) else (low[0], m)
            m = sum(high) / 2
            high = (high[0], m) if refuted(lambda x, m=m: (m - x) / (cap - m)) else (m, high[1])
        mean = float(np.mean([u.exits[p][0] for u, p in traded]))
        return dict(zip(names, (mean * 1e4, low[0] * 1e4, high[1] * 1e4), strict=True)) | {"choice_units": len(traded)}

    def _support(self, name: str, known: Sequence[Unit]) -> dict[str, Any]:
        x = np.array([[e[0] for e in u.exits] for u in known]).reshape(len(known), len(self.grid))
        days = sorted({u.entry // DAY for u in known})
        spa = stepm = None
        if len(days) >= 5:
            sums = np.array([*(x[[u.entry // DAY == d for u in known]].sum(0) for d in days), -np.ones(x.shape[1])])
            counts = np.array([*(sum(u.entry // DAY == d for u in known) for d in days), 1])
            g, n, draws = len(counts), len(known) + 1, self.rules["draws"]
            m = sums.sum(0) / n
            se = np.maximum(1e-12, np.sqrt(g / (g - 1) * ((sums - np.outer(counts, m)) ** 2).sum(0)) / n)
            t = m / se
            key = int.from_bytes(hashlib.sha256(f"{self.rules['seed']}|spa|{name}".encode()).digest()[:16], "little")
            words = np.random.Philox(key=key).random_raw(draws * g)
            drawn = [[((int(w) >> 32) * g) >> 32 for w in words[b * g : (b + 1) * g]] for b in range(draws)]
            star = np.array([sums[d].sum(0) / counts[d].sum() for d in drawn])
            recentred = m * (t >= -math.sqrt(2 * math.log(math.log(g))))
            best = np.maximum(0, ((star - recentred) / se).max(1))
            spa = (1 + int((best >= max(0, t.max())).sum())) / (draws + 1)
            rejected: set[int] = set()
            while left := [p for p in range(len(t)) if p not in rejected]:
                bar = np.quantile(((star - m) / se)[:, left].max(1), 0.95)
                more = {p for p in left if t[p] > bar}
                if not more:
                    break
                rejected |= more
            stepm = len(rejected)
        return {"spa_p": spa, "stepm_policies": stepm, "deflated_sharpe": self._sharpe(x)}

    def _sharpe(self, x: np.ndarray) -> float | None:
        n, policies = x.shape
        if n < 10 or policies < 2:
            return None
        order = sorted(range(policies), key=lambda p: canonical(self.grid[p]).encode())
        x = x[:, order]
        sd = np.array([0.0 if len(set(column)) == 1 else column.std(ddof=1) for column in x.T])
        sr = np.array([0.0 if s == 0 else column.mean() / s for column, s in zip(x.T, sd, strict=True)])
        best = int(np.argmax(sr))
        if sd[best] == 0:
            return None
        gamma = 0.5772156649015329
        luck = (1 - gamma) * norm.ppf(1 - 1 / policies) + gamma * norm.ppf(1 - 1 / (policies * math.e))
        off, s = x[:, best] - x[:, best].mean(), float(sr[best])
        var = (off**2).mean()
        width = 1 - (off**3).mean() / var**1.5 * s + ((off**4).mean() / var**2 - 1) / 4 * s * s
        return float(norm.cdf((s - sr.std(ddof=1) * luck) * math.sqrt(n - 1) / math.sqrt(max(1e-9, width))))

    def _rates(self, made: dict[str, dict[str, Any]]) -> None:
        mus = np.array([0.002, 0.005, 0.01, 0.015, *(i / 50 for i in range(1, 50))])
        cells = [
            (mu * s, (1 - mu) * s, math.log(d))
            for mu, d in zip(mus, np.gradient(mus), strict=True)
            for s in 2.0 ** np.arange(11)
        ]
        for k in (2, 3, 4):
            hits = {}
            for name in made:
                truths = [
                    naive_truth(u.window, self.replay) for u in self.resolved if u.caller == name and not u.missing
                ]
                hits[name] = sum(getattr(truth, f"t_{k}x") is not None for truth in truths), len(truths)
            logs = np.array(
                [lp + sum(betaln(a + y, b + n - y) - betaln(a, b) for y, n in hits.values()) for a, b, lp in cells]
            )
            weights = np.exp(logs - logs.max())
            weights /= weights.sum()
            for name, (y, n) in hits.items():
                a, b = (np.array([cell[i] for cell in cells]) for i in (0, 1))
                first = (a + y) / (a + b + n)
                second = first * (a + y + 1) / (a + b + n + 1)
                mean = float((weights * first).sum())
                ab = mean * (1 - mean) / (float((weights * second).sum()) - mean**2) - 1
                point = [None, 0.0 if y == 0 else 0.025, 1.0 if y == n else 0.975]
                made[name] |= {f"hit_{k}x": y, f"hit_{k}x_shrunk": mean if n else None}
                for i, side in enumerate(("low", "high"), 1):
                    edge = point[i] if point[i] in (0.0, 1.0) else _beta_point(mean * ab, (1 - mean) * ab, point[i])
                    made[name][f"hit_{k}x_{side}"] = edge if n else None


def _beta_point(a: float, b: float, q: float | None) -> float:
    """A quantile of a Beta distribution by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if betainc(a, b, middle) < (q or 0.0) else (low, middle)
    return low
