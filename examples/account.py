"""The figure of docs/evidence.md: what 1 became when it was bet on one caller's monthly choice.

Belongs here: reading the bets of a home's walk-forward runs, and the drawing as SVG. The account is that of the evidence.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.evidence.account import wealth
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.remarks import load_newest

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "account.svg"
CALLER = "sample:rare_gem"
LEFT, RIGHT, TOP, BOTTOM = 60, 760, 50, 350
FRACTION_COLOUR, MEAN_COLOUR = "#9bb7d9", "#2563c9"

Floats = npt.NDArray[np.float64]


class Account(NamedTuple):
    """Entries of the bets (UTC ms), the stakes, and W of every stake after each bet, (bets + 1, fractions)."""

    entries: list[int]
    fractions: Sequence[float]
    wealth: Floats


def account(home: Home, caller: str = CALLER) -> Account:
    """Return the account on the caller's monthly choice; without a hurdle, as where other callers' trades did not pay."""
    rules = EvidenceRules()
    table = load_newest(home.catalog, "trades", strategy_id="walk-forward")
    bets = [bet for bet in table.to_pylist() if (bet["caller_name"], bet["scheme"]) == (caller, "anchored")]
    bets.sort(key=lambda bet: (bet["entry_ts_ms"], bet["call_id"].encode()))
    x = [-1.0 if b["exit_reason"] == "data_end" else min(b["realized_return_bps"] / 10_000, rules.cap) for b in bets]
    entry, closed = (np.array([bet[name] for bet in bets]) for name in ("entry_ts_ms", "exit_ts_ms"))
    fractions = np.array(rules.fractions)
    made = [wealth(entry[:n], closed[:n], np.array(x[:n], float), fractions) for n in range(len(bets) + 1)]
    return Account(entry.tolist(), rules.fractions, np.array(made))


def draw(found: Account, caller: str = CALLER) -> str:
    """Return the figure as SVG."""
    mean = found.wealth.mean(axis=1)
    days = [0.0, *((entry - found.entries[0]) / 86_400_000 for entry in found.entries)]
    top, bottom = float(found.wealth.max()), min(1.0, float(found.wealth.min()))

    def place(day: float, value: float) -> tuple[float, float]:
        across = LEFT + (RIGHT - LEFT) * day / max(days[-1], 1)
        return across, BOTTOM - (BOTTOM - TOP) * np.log(value / bottom) / np.log(top / bottom)

    def line(values: Floats) -> str:
        return " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in zip(days, values.tolist(), strict=True))

    lines = [
        f'  <polyline points="{line(found.wealth[:, i])}" fill="none" stroke="{FRACTION_COLOUR}" stroke-width="1.3"/>\n'
        + _text(RIGHT + 8, place(0, found.wealth[-1, i])[1] + 4, f"{share:.0%} of the cash", "#4a6d99")
        for i, share in enumerate(found.fractions)
    ]
    ticks = [value for value in (0.01, 0.1, 1.0, 10.0, 100.0, 1_000.0) if bottom <= value <= top]
    grid = [_tick(place(0, value)[1], f"{value:g}") for value in ticks]
    first, last = (datetime.fromtimestamp(found.entries[i] / 1000, UTC).strftime("%Y-%m-%d") for i in (0, -1))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 400" role="img" aria-labelledby="title desc" {_FONT}>',
            f'  <title id="title">What 1 became on the calls of {caller}</title>',
            f'  <desc id="desc">{len(found.entries)} bets of the monthly choice from {first} to {last}. The mean of five '
            f"accounts ends at {mean[-1]:.1f}.</desc>",
            '  <rect width="900" height="400" fill="#ffffff"/>',
            *grid,
            *lines,
            f'  <polyline points="{line(mean)}" fill="none" stroke="{MEAN_COLOUR}" stroke-width="2.5"/>',
            _text(LEFT, 26, f"{caller} (generated): what 1 became, {len(found.entries)} bets", "#1b2026"),
            _text(RIGHT - 4, place(0, mean[-1])[1] - 10, f"mean: e_choice = {mean[-1]:.1f}", MEAN_COLOUR, "end"),
            _text(LEFT, 376, first, "#59636e"),
            _text(RIGHT, 376, last, "#59636e", "end"),
            "</svg>\n",
        ]
    )


_FONT = 'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="13"'


def _tick(y: float, text: str) -> str:
    line = f'  <line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dde1e5"/>'
    return line + "\n" + _text(LEFT - 8, y + 4, text, "#59636e", "end")


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start") -> str:
    return f'  <text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
