"""The policy grid: which policies the search tries, declared as lists of levels and multiplied out.

A new family of policies is a new field of `Grid` and a line in `policies`. Percentages are fractions (0.05 = 5 %).
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.replay.compile import compiled_key
from quantbot_pipeline.replay.policies import (
    Fraction,
    NonNegative,
    Number,
    Policy,
    Positive,
    Whole,
    complaint,
    parse_policy,
)

MINUTE, HOUR = 60_000, 3_600_000
Hold = Annotated[Whole, Field(gt=0)]


class Grid(BaseModel):
    """Levels of every family; None in a list means "without it". The default multiplies out to about 500 policies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stops: list[Fraction] = [0.05, 0.10, 0.15, 0.20, 0.25]
    take_profits: list[Positive | None] = [0.5, 1.0, 1.5, 2.0, None]
    holds_ms: list[Hold] = [5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 48 * HOUR]
    hold_take_profits: list[Positive | None] = [None, 0.5, 1.0, 2.0]
    activations: list[NonNegative] = [0.1, 0.2, 0.5]
    trails: list[Fraction] = [0.02, 0.05, 0.1]
    hard_stops: list[Fraction | None] = [None, 0.10, 0.15, 0.20]
    ladders: list[list[tuple[Number, Number]]] = [
        [(2.0, 0.5), (3.0, 0.3), (4.0, 0.2)],
        [(1.5, 0.5), (2.0, 0.5)],
        [(2.0, 1.0)],
    ]
    ladder_stops: list[Fraction | None] = [None, 0.10, 0.15, 0.20, 0.25]
    combo_holds_ms: list[Hold | None] = [None, 4 * HOUR, 24 * HOUR]
    policies: list[dict[str, Any]] = []  # further ones, as they are

    def multiply(self) -> list[Policy]:
        """All policies of the grid; of several that trade alike on every path the first stays."""
        unique: dict[tuple[object, ...], Policy] = {}
        for raw in self._raw():
            policy = parse_policy(raw)
            unique.setdefault(compiled_key(policy), policy)
        if not unique:
            raise InputError("grid: no policy; give at least one level of one family")
        return list(unique.values())

    def _raw(self) -> Iterator[dict[str, Any]]:
        for stop, take in product(self.stops, self.take_profits):
            yield {"kind": "fixed_stop", "stop_pct": stop, "take_profit_pct": take}
        for held, take in product(self.holds_ms, self.hold_take_profits):
            yield {"kind": "time_stop", "max_hold_ms": held, "take_profit_pct": take}
        for activation, trail, hard in product(self.activations, self.trails, self.hard_stops):
            yield _trailing(activation, trail, hard)
        for rungs, below in product(self.ladders, self.ladder_stops):
            yield _ladder(rungs, below)
        for activation, trail, rungs, hard, hold in product(
            self.activations, self.trails, self.ladders, self.hard_stops, self.combo_holds_ms
        ):
            timed = [] if hold is None else [{"kind": "time_stop", "max_hold_ms": hold}]
            yield {"kind": "combo", "policies": [_trailing(activation, trail, hard), _ladder(rungs, None), *timed]}
        for activation, trail, stop in product(self.activations, self.trails, self.stops):
            fixed = {"kind": "fixed_stop", "stop_pct": stop}
            yield {"kind": "combo", "policies": [_trailing(activation, trail, None), fixed]}
        yield from self.policies


def parse_grid(values: dict[str, Any]) -> Grid:
    """A grid from a mapping; an empty one is the default. Raises InputError naming the key that is wrong."""
    try:
        grid = Grid.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        raise InputError(f"grid: {complaint(first['loc'], first)}") from None
    for key, raws in (("ladders", [_ladder(rungs, None) for rungs in grid.ladders]), ("policies", grid.policies)):
        for i, raw in enumerate(raws):
            try:
                parse_policy(raw)
            except InputError as e:
                raise InputError(f"grid: {key}[{i}]: {str(e).removeprefix('policy: ')}") from None
    return grid


def _trailing(activation: float, trail: float, hard: float | None) -> dict[str, Any]:
    return {"kind": "trailing_stop", "activation_pct": activation, "trail_pct": trail, "hard_stop_pct": hard}


def _ladder(rungs: Sequence[tuple[float, float]], stop: float | None) -> dict[str, Any]:
    levels = [{"multiple": multiple, "fraction": fraction} for multiple, fraction in rungs]
    return {"kind": "ladder", "levels": levels, "stop_pct": stop}
