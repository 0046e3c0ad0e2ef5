"""Tuned levels for the page: what they promised and earned, per caller, under the verdict of their scheme."""

from typing import Any

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.reports.dashboard.policies import PolicyKey
from quantbot_pipeline.reports.page.encode import Index, of_rows
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.reports.tuned import CALLER_COLUMNS, JUDGED, promises, schemes

SHOWN = tuple(name for name in CALLER_COLUMNS if name not in ("caller_name", "policy_id", "policy_params"))


def tuning_section(catalog: Catalog, callers: Index[str], policies: Index[PolicyKey]) -> dict[str, Any]:
    """The verdicts of the schemes, and a row per caller and scheme; rows refer to `callers` and `policies` by position."""
    tuned = load_newest(catalog, "tuned")
    rows = []
    for row in promises(tuned):
        key = (row["policy_id"], row["policy_params"])
        policy = None if row["policy_id"] is None else policies.of(key)
        rows.append(row | {"caller": callers.of(row["caller_name"]), "policy": policy})
    return {
        "schemes": of_rows(schemes(tuned), ("scheme", "month", *JUDGED, "meaning")),
        "callers": of_rows(rows, ("caller", *SHOWN, "policy")),
    }
