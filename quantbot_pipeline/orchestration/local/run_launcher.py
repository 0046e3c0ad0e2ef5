"""The run launcher of a home's instance: Dagster's own, and it can tell whether the process of a run is still alive.

Dagster notices that a run worker died only while the code server that started it lives. After a power cut, or when all of
`quantbot ui` was killed, nobody notices: the run would stay "started" for half a day and keep the catalog's pool. Every run writes
its process id into its own log; run monitoring asks here whether that process is there. A number is given again to later
processes, so a run is tagged with the moment of its launch, by the machine's own count since it started: the wall clock may be set.
"""

import os
import re
from pathlib import Path

import dagster as dg
from dagster._core.launcher.base import (  # where Dagster's own launchers have it from
    CheckRunHealthResult,
    LaunchRunContext,
    WorkerStatus,
)

from quantbot_pipeline.orchestration.launch import BOOT_ID, LAUNCHED_TAG, launched_tag
from quantbot_pipeline.orchestration.partitions import months_tag

START_S = 180.0  # within which a launched process has started: run monitoring gives up a run that is not there by then
EARLY_S = 60.0  # without the tag: the wall clock may have been set between a process's start and its first event


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher with a pulse; named in `dagster.yaml`."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def launch_run(self, context: LaunchRunContext) -> None:
        """Dagster's own, of a run that says when it was launched and over which months."""
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, launched_tag() | months_tag(run.tags))
        super().launch_run(context)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING while a process that said that it executes this run lives (or none has said so yet), else FAILED."""
        said: dict[int, float] = {}
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            pid = None if entry.dagster_event is None else entry.dagster_event.engine_event_data.metadata.get("pid")
            if pid is not None:
                said[int(str(pid.value))] = entry.timestamp
        launched = run.tags.get(LAUNCHED_TAG, "")
        if not said or any(is_alive(pid, at, launched) for pid, at in said.items()):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {', '.join(map(str, said))} is gone")


def is_alive(pid: int, seen_at: float, launched: str = "") -> bool:
    """Whether process `pid` lives and is the one that was seen, not a later one with its number.

    It was launched at the moment of `launched_tag`, if there is one; it was seen at `seen_at` (seconds since 1970).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's: it lives
    try:
        # After the name, which may hold anything in its parentheses: state is the first field, start the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        boot_id = BOOT_ID.read_text().strip()
    except (OSError, StopIteration):
        return not Path("/proc/self").exists()  # gone since; without /proc the number is all there is
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds since the machine was
    if fields[0] in "ZX":
        return False
    if tag := re.fullmatch(r"([0-9a-f-]{36}) (\d+\.\d+)", launched):
        return tag[1] == boot_id and started <= float(tag[2]) + START_S
    return int(booted.split()[1]) + started <= seen_at + EARLY_S
