"""Exit policies as data: validated models, canonical JSON, a stable id, and their compilation for the engine.

Belongs here: what a policy is and which numbers the engine needs from it. A new kind of policy is a new model here, a
line in `_rules`, and, if it needs a new kind of level, a step in `engine`. Source of every rule: docs/semantics.md.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

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


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedStop(_Model):
    """Leave at `p0*(1-stop_pct)`, or at `p0*(1+take_profit_pct)`."""

    kind: Literal["fixed_stop"]
    stop_pct: Fraction
    take_profit_pct: Positive | None = None


class TimeStop(_Model):
    """Leave once `max_hold_ms` have passed since the entry, or at `p0*(1+take_profit_pct)`."""

    kind: Literal["time_stop"]
    max_hold_ms: Annotated[Whole, Field(gt=0)]
    take_profit_pct: Positive | None = None


class TrailingStop(_Model):
    """Once the price has risen by `activation_pct`, leave `trail_pct` below the running maximum."""

    kind: Literal["trailing_stop"]
    activation_pct: NonNegative
    trail_pct: Fraction
    hard_stop_pct: Fraction | None = None


class Level(_Model):
    """Sell `fraction` of the original position at `multiple` times the entry price."""

    multiple: Annotated[float, Field(strict=True, gt=1, allow_inf_nan=False)]
    fraction: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]


class Ladder(_Model):
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


Rule = Annotated[FixedStop | TimeStop | TrailingStop | Ladder, Field(discriminator="kind")]


class Combo(_Model):
    """All rules hold on the one position; the first that fires decides."""

    kind: Literal["combo"]
    policies: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_ladder(self) -> "Combo":
        if sum(isinstance(rule, Ladder) for rule in self.policies) > 1:
            raise ValueError("policies: at most one ladder in a combo")
        return self


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
    return _dump(_plain(policy))


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _plain(policy: BaseModel) -> dict[str, Any]:
    plain = {k: _number(v) for k, v in policy.model_dump(exclude_none=True).items()}
    if isinstance(policy, Ladder):
        plain["levels"] = [
            {"fraction": _number(level.fraction), "multiple": _number(level.multiple)} for level in policy.levels
        ]
    if isinstance(policy, Combo):
        plain["policies"] = sorted((_plain(rule) for rule in policy.policies), key=lambda rule: _dump(rule).encode())
    return plain


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def policy_id(policy: Policy) -> str:
    """A readable slug of the canonical JSON, injective: `fixed_sl0.2_tp1`, `time_1h`, `trail_a0.2_t0.1_hs0.2`."""
    return _slug(json.loads(canonical_json(policy)))


def _slug(p: dict[str, Any]) -> str:
    match p["kind"]:
        case "fixed_stop":
            return f"fixed_sl{p['stop_pct']!r}" + _optional("_tp", p.get("take_profit_pct"))
        case "time_stop":
            return f"time_{_duration(p['max_hold_ms'])}" + _optional("_tp", p.get("take_profit_pct"))
        case "trailing_stop":
            return f"trail_a{p['activation_pct']!r}_t{p['trail_pct']!r}" + _optional("_hs", p.get("hard_stop_pct"))
        case "ladder":
            rungs = "+".join(f"{level['multiple']!r}x{level['fraction']!r}" for level in p["levels"])
            return f"ladder_{rungs}" + _optional("_sl", p.get("stop_pct"))
        case _:
            return "combo(" + "&".join(_slug(rule) for rule in p["policies"]) + ")"


def _optional(prefix: str, value: float | None) -> str:
    return "" if value is None else f"{prefix}{value!r}"


def _duration(ms: int) -> str:
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
