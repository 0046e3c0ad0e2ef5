"""All numbers of the dashboard: aggregates of verified artifacts and answers of the catalog, as one JSON-able mapping.

Belongs here: which sections there are and what they share. A number that the page shows is computed in a section's module, or
in the report behind the command of the same name. The browser only sorts, filters and draws.
"""

from typing import Any

import duckdb

from quantbot_pipeline.catalog.catalog import Catalog, reading
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import iso_now
from quantbot_pipeline.reports.changes import changes
from quantbot_pipeline.reports.dashboard.anomalies import anomalies_section
from quantbot_pipeline.reports.dashboard.callers import callers_section
from quantbot_pipeline.reports.dashboard.calls import Beside, calls_section
from quantbot_pipeline.reports.dashboard.evidence import evidence_section
from quantbot_pipeline.reports.dashboard.frontiers import frontier_section, v1_section
from quantbot_pipeline.reports.dashboard.overview import errors, overview
from quantbot_pipeline.reports.dashboard.policies import PolicyKey, load_replayed, policy_columns, replayed_section
from quantbot_pipeline.reports.dashboard.predictions import predictions_of, predictions_section
from quantbot_pipeline.reports.dashboard.runs import runs_section
from quantbot_pipeline.reports.dashboard.tuning import tuning_section
from quantbot_pipeline.reports.leaderboard import first_policies
from quantbot_pipeline.reports.page.encode import Index
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.reports.searches import latest_verdicts, tested_trades
from quantbot_pipeline.reports.verdicts import newest_verdicts
from quantbot_pipeline.version import __version__
from quantbot_pipeline.vocabulary import ALL_CALLERS, MUCH_ENDED

CHANGES_SHOWN = 50
MIN_CALLS = 10  # below that a caller is marked: the same number that the search asks for


def collect(home: Home) -> dict[str, Any]:
    """Everything the page shows, of one state of the catalog.

    Raises InputError without a catalog, IntegrityError for a changed file of a newest run.
    """
    with reading(home.catalog):  # one connection for all that is asked
        return _sections(home)


def _sections(home: Home) -> dict[str, Any]:
    catalog = home.catalog
    callers: Index[str] = Index(ALL_CALLERS)
    policies: Index[PolicyKey] = Index()
    violations: Index[str] = Index("")
    paths, walked = load_newest(catalog, "paths"), load_newest(catalog, "walk_forward")
    verdicts = newest_verdicts(catalog)
    data: dict[str, Any] = {
        "built_at": iso_now(),
        "version": __version__,
        "min_calls": MIN_CALLS,
        "much_ended": MUCH_ENDED,
        "overview": overview(catalog),
        "changes": _changes(catalog, callers),
        "callers": callers_section(
            verdicts,
            paths,
            first_policies(catalog),
            walked,
            tested_trades(catalog),
            callers,
            policies,
        ),
        "evidence": evidence_section(catalog, verdicts, callers),
        "errors": errors(catalog, callers),
        "frontier": frontier_section(catalog, callers, policies, violations),
        "v1": v1_section(catalog, callers, policies),
        "runs": runs_section(catalog),
    }
    data["predictions"] = predictions_section(catalog)
    data["tuning"] = tuning_section(catalog, callers, policies)
    data["anomalies"], odd = anomalies_section(catalog, home.candles.folder, callers)
    known = Beside(lambda calls: predictions_of(catalog, calls, data["predictions"]), odd)
    beside, shown = latest_verdicts(catalog, walked), data["callers"]["walk_forward"]
    shown["verdict"] = [beside.get(callers.values[caller]) for caller in shown["caller"]]
    with duckdb.connect() as con:
        settings = load_replayed(con, catalog, policies)
        data["policies"] = replayed_section(con, settings)
        data["calls"] = calls_section(con, paths, home.candles.folder, callers, policies, known)
    # Last, when every section has named what it refers to.
    return data | {
        "names": callers.values,
        "policy": policy_columns(policies),
        "violations": violations.values,
    }


def _changes(catalog: Catalog, callers: Index[str]) -> dict[str, Any]:
    """What changed since the month before; rows refer to `callers` by position."""
    found = changes(catalog)
    rows = [{"caller": callers.of(row["caller_name"]), **row} for row in found.rows[:CHANGES_SHOWN]]
    return {"month": found.month, "before": found.before, "rows": rows}
