"""Replicas: how far each place of QUANTBOT_REPLICAS is behind the runs of a home, and what somebody should look at.

Belongs here: the judgement. Does not: the copying; see `runs.replicate`.
"""

from typing import NamedTuple

from quantbot_pipeline.errors import StoreError, counted
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.replicate import Comparison, lacking, lag_of


class ReplicaState(NamedTuple):
    """A replica beside the home's runs. lag_s and waiting_s: as `runs.replicate.Lag`. fault: what is wrong; empty where nothing is."""

    replica: str
    runs: int
    missing: int
    differing: int
    lag_s: float
    waiting_s: float
    fault: str


def inspect_replicas(home: Home, *, now_s: float) -> list[ReplicaState]:
    """Compare every replica with the home's runs, by listings; one that does not answer is a fault of its own."""
    limit, found = home.settings.replica_lag_s, []
    for replica in home.replicas:
        try:
            compared = lacking(home.runs, replica)
            lag = lag_of(home.runs, compared, now_s)
        except StoreError as e:
            found.append(ReplicaState(replica.place, 0, 0, 0, 0.0, 0.0, str(e)))
            continue
        found.append(
            ReplicaState(
                replica.place,
                len(compared.alike),
                len(compared.missing),
                len(compared.differing),
                round(lag.lag_s, 3),
                round(lag.waiting_s, 3),
                fault_of(replica.place, compared, lag.waiting_s, limit),
            )
        )
    return found


def fault_of(place: str, compared: Comparison, waiting_s: float, limit_s: float) -> str:
    """Return what is wrong with a replica in one sentence; empty where nothing is.

    Not the lag itself is judged: where runs are made once a day, it is a day as soon as one is made.
    """
    if compared.differing:
        run_dir, why = next(iter(compared.differing.items()))
        return f"{place}: {counted(len(compared.differing), 'run')} not as at the source: {run_dir}: {why}"
    if waiting_s > limit_s:
        return (
            f"{place}: {counted(len(compared.missing), 'run')} missing, the oldest for {waiting_s:,.0f} s; "
            f"the limit is {limit_s:g} s (QUANTBOT_REPLICA_LAG_S)"
        )
    return ""


def months_lacking(home: Home, *, unknown: str) -> list[str]:
    """Return the months of which some replica lacks a run, ascending; `unknown` where a replica does not answer: its copying says why."""
    found: set[str] = set()
    for replica in home.replicas:
        try:
            found |= {run_dir.split("/")[0] for run_dir in lacking(home.runs, replica).missing}
        except StoreError:
            found.add(unknown)
    return sorted(found)
