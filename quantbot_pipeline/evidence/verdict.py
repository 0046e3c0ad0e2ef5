"""The verdict: which callers are claimed, and how many calls the others lack.

Source: docs/evidence.md, "Verdict"; Wang and Ramdas, "False discovery rate control with e-values", 2022 (e-BH). Of rows that
say `evidence` at most a share `fdr` is false in expectation, whatever depends on whatever.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantbot_pipeline.evidence.evalues import EValue, Refuting
from quantbot_pipeline.evidence.rules import EvidenceRules
from quantbot_pipeline.vocabulary import VERDICTS

EVIDENCE, INCONCLUSIVE, NONE = VERDICTS
FEW_CALLS, FEW_MINTS, MISSING_DATA, FADING = "few_calls", "few_mints", "missing_data", "fading"
FLAGS = (FEW_CALLS, FEW_MINTS, MISSING_DATA, FADING)
MOST_NEEDED = 100_000


class Standing(NamedTuple):
    """What the verdict needs to know of a caller. bets: units with a bet in `e`, missing ones too."""

    name: str
    units: int
    mints: int
    missing: int
    bets: int
    e: EValue
    recent: float
    none: Refuting


class Verdict(NamedTuple):
    """What is said of a caller; `needed` and `towards` only where nothing is concluded and an end is in sight."""

    verdict: str
    needed: int | None
    towards: str | None
    flags: tuple[str, ...]
    tested: bool
    threshold: float


def verdicts(standings: Sequence[Standing], rules: EvidenceRules) -> list[Verdict]:
    """Return the verdict on every caller, in their order."""
    tested = [s.units >= rules.min_units and s.mints >= rules.min_mints for s in standings]
    ranked = sorted(
        (s for s, is_tested in zip(standings, tested, strict=True) if is_tested),
        key=lambda s: (-s.e.value, s.name.encode()),
    )
    k = len(ranked)
    claims = max((i for i, s in enumerate(ranked, 1) if s.e.value >= k / (i * rules.fdr)), default=0)
    claimed = {s.name for s in ranked[:claims]}
    made = []
    for standing, is_tested in zip(standings, tested, strict=True):
        among, place = (k if is_tested else k + 1), claims + (standing.name not in claimed)
        made.append(_judge(standing, is_tested, standing.name in claimed, among / (rules.fdr * place), rules))
    return made


def _judge(s: Standing, tested: bool, claimed: bool, threshold: float, rules: EvidenceRules) -> Verdict:
    refuted = s.none.value >= 1 / rules.none_alpha
    verdict = EVIDENCE if claimed else NONE if refuted else INCONCLUSIVE
    needed, towards = _needed(s, threshold, rules) if verdict == INCONCLUSIVE else (None, None)
    raised = {
        FEW_CALLS: s.units < rules.min_units,
        FEW_MINTS: s.mints < rules.min_mints,
        MISSING_DATA: s.missing > rules.max_missing * (s.units + s.missing),
        FADING: claimed and s.recent < 1,
    }
    return Verdict(verdict, needed, towards, tuple(f for f in FLAGS if raised[f]), tested, threshold)


def _needed(s: Standing, threshold: float, rules: EvidenceRules) -> tuple[int | None, str | None]:
    """Return about how many more calls a verdict takes, and which verdict that is."""
    found: list[tuple[float, str]] = []
    rate = _rate(s.e.growth, s.e.value, s.bets)
    if rate > 0 and s.e.value > 1:
        found.append((max(math.log(threshold / s.e.value) / rate, rules.min_units - s.bets, 1.0), EVIDENCE))
    rate = _rate(s.none.growth, s.none.value, s.none.bets)
    if rate > 0:
        found.append((max(math.log(1 / (rules.none_alpha * s.none.value)) / rate, 1.0), NONE))
    near = [pair for pair in found if pair[0] <= MOST_NEEDED]
    if not near:
        return None, None
    calls, towards = min(near, key=lambda pair: pair[0])
    step = 10 ** max(0, math.floor(math.log10(calls)) - 1)
    return math.ceil(calls / step) * step, towards


def _rate(growth: float, value: float, bets: int) -> float:
    """Return the growth a bet; 0 without bets, or where every account is lost."""
    return growth / value / bets if bets and value > 0 else 0.0
