"""How verdicts are ordered and said: alike on the command line, in the web UI and on the dashboard.

Belongs here: words for rows of the artifact `evidence`. Does not: how a verdict is reached (`verdict.py`).
"""

from collections.abc import Mapping
from typing import Any

from quantbot_pipeline.vocabulary import VERDICTS


def standing(row: Mapping[str, Any]) -> tuple[int, float, bytes]:
    """Return what a row is sorted by: evidence, inconclusive, none; then falling e-value; then the name in byte order."""
    return VERDICTS.index(row["verdict"]), -row["e_value"], row["caller_name"].encode()


def is_untested(row: Mapping[str, Any]) -> bool:
    """Return whether a caller has too few calls or tokens to be tested."""
    return not {"few_calls", "few_mints"}.isdisjoint((row["flags"] or "").split(","))


def said(row: Mapping[str, Any]) -> str:
    """Return a verdict in words, with how many calls it lacks."""
    verdict = str(row["verdict"])
    if verdict != "inconclusive":
        return verdict
    needed = row["calls_needed"]
    return f"{verdict}: no end in sight" if needed is None else f"{verdict}: about {needed:,} more calls"


def judgement(caller: str, row: Mapping[str, Any] | None, month: str | None) -> str:
    """Return the verdict on a caller as sentences; `row` is its row of the month's evidence, None where there is none."""
    caller = printable(caller)
    if row is None or month is None:
        return f"No verdict on {caller}: nothing says that these numbers are more than luck."
    e = f"e is {figure(row['e_value'])} of {figure(row['e_threshold'])} needed, over {row['units']:,} units as of {month}"
    leads = {
        "evidence": f"Evidence: the calls of {caller} earned more than luck explains ({e}).",
        "none": f"None: an edge that would matter is refuted for {caller} ({e}).",
    }
    lead = leads.get(row["verdict"], f"{said(row).capitalize()}, for {caller} ({e}).")
    if not row["choice_units"]:
        return f"{lead} The monthly choice has not traded yet."
    mean, low, high = (f"{row[f'choice_{name}_bps']:,.0f}" for name in ("mean", "low", "high"))
    return f"{lead} Out of sample the monthly choice earned {mean} bps a call, 95 % interval {low} to {high}, over {row['choice_units']:,} units."


def printable(name: str) -> str:
    """Return a name of outside as a sentence may hold it: nothing in it moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def figure(value: float) -> str:
    """Return an e-value with three digits; from a thousand on whole, from a million on as a power of ten."""
    return f"{value:,.0f}" if 1_000 <= value < 1_000_000 else f"{value:.3g}"
