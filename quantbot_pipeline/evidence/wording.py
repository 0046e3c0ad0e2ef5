"""How verdicts are ordered and said: alike on the command line, in the web UI and on the dashboard.

Belongs here: words for rows of the artifact `evidence`. Does not: how a verdict is reached (`verdict.py`).
"""

from collections.abc import Mapping
from typing import Any

from quantbot_pipeline.vocabulary import VERDICTS


def standing(row: Mapping[str, Any]) -> tuple[int, float, bytes]:
    """Return what a row is sorted by: evidence, inconclusive, none; then falling e-value; then the name in byte order."""
    return VERDICTS.index(row["verdict"]), -row["e_value"], row["caller_name"].encode()


def said(row: Mapping[str, Any]) -> str:
    """Return a verdict in words, with how many calls it lacks."""
    verdict = str(row["verdict"])
    if verdict != "inconclusive":
        return verdict
    needed = row["calls_needed"]
    return f"{verdict}: no end in sight" if needed is None else f"{verdict}: about {needed:,} more calls"
