"""Exit policies as data: validated models, canonical JSON, a stable id, words, price levels.

Belongs here: what a policy is. A new kind is a new class here, joined to `Rule` and `Policy`; if it needs a new kind of level,
a field of `Terms`, an array in `compile` and a step in `kernel`. Source of every rule: docs/semantics.md, "Policies".
"""

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from quantbot_pipeline.errors import InputError


def _integral(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Numbers as JSON has them: neither booleans nor text; 3600000.0 is a whole number.
Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_integral), Field(strict=True)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
FRACTION_SLACK = 1e-9


class Terms(NamedTuple):
    """What a policy asks of the engine: levels as factors of the entry price, `1-s` for a stop, `1+t` for a take profit.

    stops, hard_stops: below the entry price. takes: above it. holds: ms. trails: (activation, what is kept of the maximum).
    rungs: (multiple, fraction of the original position), ascending.
    """

    stops: tuple[float, ...] = ()
    hard_stops: tuple[float, ...] = ()
    takes: tuple[float, ...] = ()
    holds: tuple[int, ...] = ()
    trails: tuple[tuple[float, float], ...] = ()
    rungs: tuple[tuple[float, float], ...] = ()


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyKind(_Model, ABC):
    """A kind of policy: one class says what it is as JSON, in an id, in words, as price levels and as terms of the engine."""

    def plain(self) -> dict[str, Any]:
        """Return the canonical mapping: nulls omitted, integral numbers as integers."""
        return {k: _number(v) for k, v in self.model_dump(exclude_none=True).items()}

    @abstractmethod
    def slug(self) -> str:
        """Return the readable part of an id; injective."""

    @abstractmethod
    def words(self) -> str:
        """Return what a trader would say, e.g. `stop -20%, take profit +100%`."""

    @abstractmethod
    def levels_at_entry(self) -> list[tuple[str, float]]:
        """Return (what happens, multiple of the entry price) of every level that is known at the entry."""

    @abstractmethod
    def terms(self) -> Terms:
        """Return what the engine needs of it."""


class FixedStop(PolicyKind):
    """Leave at `p0*(1-stop_pct)`, or at `p0*(1+take_profit_pct)`."""

    kind: Literal["fixed_stop"]
    stop_pct: Fraction
    take_profit_pct: Positive | None = None

    def slug(self) -> str:
        return f"fixed_sl{_spelled(self.stop_pct)}" + _suffix("_tp", self.take_profit_pct)

    def words(self) -> str:
        return f"stop {_change(-self.stop_pct)}" + _said(", take profit ", self.take_profit_pct)

    def levels_at_entry(self) -> list[tuple[str, float]]:
        return [*_take(self.take_profit_pct), ("stop", 1 - self.stop_pct)]

    def terms(self) -> Terms:
        return Terms(stops=(1 - self.stop_pct,), takes=_factors(self.take_profit_pct))


class TimeStop(PolicyKind):
    """Leave once `max_hold_ms` have passed since the entry, or at `p0*(1+take_profit_pct)`."""

    kind: Literal["time_stop"]
    max_hold_ms: Annotated[Whole, Field(gt=0)]
    take_profit_pct: Positive | None = None

    def slug(self) -> str:
        return f"time_{_duration_slug(self.max_hold_ms)}" + _suffix("_tp", self.take_profit_pct)

    def words(self) -> str:
        return f"leave after {_duration_words(self.max_hold_ms)}" + _said(", take profit ", self.take_profit_pct)

    def levels_at_entry(self) -> list[tuple[str, float]]:
        return _take(self.take_profit_pct)

    def terms(self) -> Terms:
        return Terms(holds=(self.max_hold_ms,), takes=_factors(self.take_profit_pct))


class TrailingStop(PolicyKind):
    """Once the price has risen by `activation_pct`, leave `trail_pct` below the running maximum."""

    kind: Literal["trailing_stop"]
    activation_pct: NonNegative
    trail_pct: Fraction
    hard_stop_pct: Fraction | None = None

    def slug(self) -> str:
        own = f"trail_a{_spelled(self.activation_pct)}_t{_spelled(self.trail_pct)}"
        return own + _suffix("_hs", self.hard_stop_pct)

    def words(self) -> str:
        start = f"once up {_percent(self.activation_pct)}, " if self.activation_pct else ""
        hard = None if self.hard_stop_pct is None else -self.hard_stop_pct
        return f"{start}trail {_percent(self.trail_pct)} below the high" + _said(", hard stop ", hard)

    def levels_at_entry(self) -> list[tuple[str, float]]:
        hard = [] if self.hard_stop_pct is None else [("hard stop", 1 - self.hard_stop_pct)]
        return [("trail starts", 1 + self.activation_pct), *hard]

    def terms(self) -> Terms:
        hard = () if self.hard_stop_pct is None else (1 - self.hard_stop_pct,)
        return Terms(trails=((1 + self.activation_pct, 1 - self.trail_pct),), hard_stops=hard)


class Level(_Model):
    """Sell `fraction` of the original position at `multiple` times the entry price."""

    multiple: Annotated[float, Field(strict=True, gt=1, allow_inf_nan=False)]
    fraction: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]


class Ladder(PolicyKind):
    """Sell in parts on the way up; the rest leaves at the stop or with the window."""

    kind: Literal["ladder"]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    stop_pct: Fraction | None = None

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if sum(level.fraction for level in levels) > 1 + FRACTION_SLACK:
            raise ValueError("the fractions sum to more than 1")
        if len({level.multiple for level in levels}) < len(levels):
            raise ValueError("two levels have the same multiple")
        return tuple(sorted(levels, key=lambda level: level.multiple))

    def plain(self) -> dict[str, Any]:
        rungs = [{"fraction": _number(rung.fraction), "multiple": _number(rung.multiple)} for rung in self.levels]
        return super().plain() | {"levels": rungs}

    def slug(self) -> str:
        rungs = "+".join(f"{_spelled(rung.multiple)}x{_spelled(rung.fraction)}" for rung in self.levels)
        return f"ladder_{rungs}" + _suffix("_sl", self.stop_pct)

    def words(self) -> str:
        rungs = ", ".join(f"{_percent(rung.fraction)} at {rung.multiple:g}x" for rung in self.levels)
        stop = None if self.stop_pct is None else -self.stop_pct
        return f"sell {rungs}" + _said(", stop ", stop)

    def levels_at_entry(self) -> list[tuple[str, float]]:
        stop = [] if self.stop_pct is None else [("stop", 1 - self.stop_pct)]
        return [*stop, *((f"sell {_percent(rung.fraction)}", rung.multiple) for rung in self.levels)]

    def terms(self) -> Terms:
        stops = () if self.stop_pct is None else (1 - self.stop_pct,)
        return Terms(stops=stops, rungs=tuple((rung.multiple, rung.fraction) for rung in self.levels))


Rule = Annotated[FixedStop | TimeStop | TrailingStop | Ladder, Field(discriminator="kind")]


class Combo(PolicyKind):
    """All rules hold on the one position; the first that fires decides."""

    kind: Literal["combo"]
    policies: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_ladder(self) -> "Combo":
        if sum(isinstance(rule, Ladder) for rule in self.policies) > 1:
            raise ValueError("policies: at most one ladder in a combo")
        return self

    def plain(self) -> dict[str, Any]:
        rules = sorted((rule.plain() for rule in self.policies), key=lambda rule: _dump(rule).encode())
        return super().plain() | {"policies": rules}

    def slug(self) -> str:
        rules = sorted(self.policies, key=lambda rule: _dump(rule.plain()).encode())
        return "combo(" + "&".join(rule.slug() for rule in rules) + ")"

    def words(self) -> str:
        return "; ".join(rule.words() for rule in self.policies)

    def levels_at_entry(self) -> list[tuple[str, float]]:
        return [level for rule in self.policies for level in rule.levels_at_entry()]

    def terms(self) -> Terms:
        joined = zip(*(rule.terms() for rule in self.policies), strict=True)
        return Terms(*(tuple(value for part in parts for value in part) for parts in joined))


Policy = FixedStop | TimeStop | TrailingStop | Ladder | Combo
KINDS = ("fixed_stop", "time_stop", "trailing_stop", "ladder", "combo")
_ADAPTER: TypeAdapter[Policy] = TypeAdapter(Annotated[Policy, Field(discriminator="kind")])
DEFAULT_POLICIES: tuple[dict[str, Any], ...] = (
    {"kind": "fixed_stop", "stop_pct": 0.2, "take_profit_pct": 1.0},
    {"kind": "time_stop", "max_hold_ms": 3_600_000},
    {"kind": "trailing_stop", "activation_pct": 0.2, "trail_pct": 0.1, "hard_stop_pct": 0.2},
    {
        "kind": "ladder",
        "levels": [
            {"multiple": 2.0, "fraction": 0.5},
            {"multiple": 3.0, "fraction": 0.3},
            {"multiple": 4.0, "fraction": 0.2},
        ],
        "stop_pct": 0.2,
    },
)


def example(given: str) -> str:
    """Return what to say to whoever gave no policy: the kinds, and one policy of the kind that the text names, if it does."""
    combo = {"kind": "combo", "policies": [DEFAULT_POLICIES[0], DEFAULT_POLICIES[1]]}
    shown = next((policy for policy in (combo, *DEFAULT_POLICIES) if str(policy["kind"]) in given), DEFAULT_POLICIES[0])
    return f"kinds are {', '.join(KINDS)}; write for example '{json.dumps(shown)}'"


def parse_policy(value: str | Mapping[str, Any]) -> Policy:
    """A policy from JSON text or a mapping. Raises InputError naming the key that is wrong."""
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as e:
            raise InputError(f"policy: not valid JSON: {e}") from None
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as e:
        raise InputError(f"policy: {_explain(e)}") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object for `json.loads(object_pairs_hook=…)`; ValueError for a key given twice: one value would be lost."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} appears twice")
    return values


def _explain(error: ValidationError) -> str:
    """The first complaint about a policy; a mistyped key comes first: it is also missing under its right name."""
    complaints = error.errors()
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    location: list[str | int] = []
    for i, part in enumerate(first["loc"]):
        # pydantic puts the union's tag behind the place of the union: at the top, and behind an index of `policies`
        is_tag = i == 0 or (isinstance(first["loc"][i - 1], int) and i > 1 and first["loc"][i - 2] == "policies")
        if isinstance(part, int) or not is_tag:
            location.append(part)
    if first["type"].startswith("union_tag"):
        location.append("kind")
    return complaint(location, first)


def complaint(location: Sequence[str | int], error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in one line for whoever wrote the JSON: path of the key, what is wrong, what was given."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = part if part.isidentifier() else repr(part)
            path += f".{name}" if path else name
    context = error.get("ctx", {})
    kinds = KINDS if len(location) == 1 else KINDS[:-1]  # no combo in a combo
    problems = {
        "extra_forbidden": "unknown key",
        "missing": "missing",
        "too_short": "an empty list; give at least one",
        "union_tag_invalid": f"no kind of policy that may stand here; choose one of {', '.join(kinds)}",
        "union_tag_not_found": f"missing; choose one of {', '.join(kinds)}",
    }
    problem = problems.get(error["type"], error["msg"].removeprefix("Value error, "))
    given = context["tag"] if error["type"] == "union_tag_invalid" else error["input"]
    return f"{path}{': ' if path else ''}{problem} (given: {repr(given)[:80]})"


@functools.lru_cache(maxsize=8192)  # a search asks for the text, the id, and again for every month
def canonical_json(policy: Policy) -> str:
    """The one JSON text of a policy: sorted keys, no blanks, nulls omitted, integral numbers as integers."""
    return _dump(policy.plain())


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def policy_id(policy: Policy) -> str:
    """Return a readable slug of the canonical JSON, injective: `fixed_sl0.2_tp1`, `time_1h`, `trail_a0.2_t0.1_hs0.2`."""
    return policy.slug()


def _spelled(value: float) -> str:
    return repr(_number(value))


def _suffix(prefix: str, value: float | None) -> str:
    return "" if value is None else f"{prefix}{_spelled(value)}"


def _said(prefix: str, change: float | None) -> str:
    return "" if change is None else prefix + _change(change)


def _take(pct: float | None) -> list[tuple[str, float]]:
    return [] if pct is None else [("take profit", 1 + pct)]


def _factors(pct: float | None) -> tuple[float, ...]:
    return () if pct is None else (1 + pct,)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.4g}%"


def _change(fraction: float) -> str:
    return f"{fraction * 100:+.4g}%"


def _duration_slug(ms: int) -> str:
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _duration_words(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms % size == 0 and (unit != "d" or ms // size > 2):  # people say 48 h, not 2 d
            return f"{ms // size} {unit}"
    return f"{ms} ms"
