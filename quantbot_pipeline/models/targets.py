"""Targets: what is predicted of a call, as a name, and the outcome that the name means.

Belongs here: names and outcomes. Does not: how an outcome is predicted.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.models.numbers import Floats, Mask

MAX_TARGETS = 20
_FORMS = "hit_2x, hit_3x, hit_4x, peak_K with K above 1, drawdown_P with P percent between 0 and 100, win, return"


class Target(NamedTuple):
    """A target: its name, its kind (hit, peak, drawdown, win or return), and the level of the kind (NaN without one)."""

    name: str
    kind: str
    level: float

    @property
    def is_amount(self) -> bool:
        """Whether an amount is predicted, and not a probability."""
        return self.kind == "return"

    @property
    def of_policy(self) -> bool:
        """Whether the outcome depends on the exit policy."""
        return self.kind in ("win", "return")

    @property
    def words(self) -> str:
        """What the number of a prediction is, in words."""
        return {
            "hit": f"the chance that the price reaches {self.level:g} times the entry price",
            "peak": f"the chance that the price reaches {self.level:g} times the entry price",
            "drawdown": f"the chance that the price falls {self.level:g} % below the entry price",
            "win": "the chance that the policy earns something after costs",
            "return": "what the policy returns after costs, as a fraction of the stake",
        }[self.kind]


def parse_target(text: str) -> Target:
    """Return the target of a name. Raises InputError for any other text; one target has one name (`peak_1.5`, not `peak_1.50`)."""
    if text in ("win", "return"):
        return Target(text, text, float("nan"))
    if hit := re.fullmatch(r"hit_([234])x", text):
        return Target(text, "hit", float(hit[1]))
    if found := re.fullmatch(r"(peak|drawdown)_(\d{1,6}(?:\.\d{1,6})?)", text):
        kind, level = found[1], float(found[2])
        plain = f"{level:.12g}"
        if (level > 1 if kind == "peak" else 0 < level < 100) and "e" not in plain:
            if plain != found[2]:
                raise InputError(f"targets: {text!r} is spelled '{kind}_{plain}'")
            return Target(text, kind, level)
    raise InputError(f"targets: {text!r} is no target; choose among {_FORMS}")


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Return targets in their order. Raises InputError for none, too many, one that is unknown, or one named twice."""
    if not texts:
        raise InputError(f"targets: none given; choose among {_FORMS}")
    if len(texts) > MAX_TARGETS:
        raise InputError(f"targets: {len(texts)} are too many; give {MAX_TARGETS} at most")
    found = tuple(parse_target(text) for text in texts)
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InputError(f"targets: {twice!r} is given twice; leave one out")
    return found


def outcomes_of(target: Target, peak_multiple: Floats, hits: Mask, dd_bps: Floats, returns: Floats) -> Floats:
    """Return the outcome of each call, shape (C,): 1 or 0, or the realized fraction for `return`.

    hits: (C, 3), whether 2, 3 and 4 times the entry price were touched. returns: realized fractions of the policy. Rows of calls
    without a window mean nothing.
    """
    if target.kind == "hit":
        return hits[:, int(target.level) - 2].astype(np.float64)
    if target.kind == "peak":
        return (peak_multiple >= target.level).astype(np.float64)
    if target.kind == "drawdown":
        return (dd_bps <= -100.0 * target.level).astype(np.float64)
    return returns.astype(np.float64) if target.is_amount else (returns > 0).astype(np.float64)
