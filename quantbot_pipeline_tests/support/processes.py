"""Processes of a lab that runs, found in /proc and in what Dagster notes of its runs."""

import contextlib
from pathlib import Path

import dagster as dg


def children(parent: int, word: str) -> list[int]:
    """Living child processes with this word in their command line."""
    found = []
    with contextlib.suppress(OSError):
        for pid in map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
            with contextlib.suppress(OSError):
                found += [pid] if word in Path(f"/proc/{pid}/cmdline").read_text() else []
    return found


def pid_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[int]:
    """The process of a run, once it has said its number."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    metadata = [e.dagster_event.engine_event_data.metadata for e in events if e.dagster_event]
    return [int(str(m["pid"].value)) for m in metadata if "pid" in m][-1:]
