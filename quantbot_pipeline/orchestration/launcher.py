"""The run launcher of a home's instance: Dagster's own, and it can tell whether the process of a run is still alive.

Dagster notices that a run worker died only while the code server that started it lives. After a power cut, or when all of
`quantbot ui` was killed, nobody notices: the run would stay "started" for half a day and keep the catalog's pool. Every run writes
its process id into its own log; run monitoring asks here whether that process is there.
"""

import os
from pathlib import Path

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus  # where Dagster's own launchers have it from

EARLY_S = 60.0  # the clock may have been set between a process's start and its first event


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher with a pulse; named in `dagster.yaml`."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING while a process that said that it executes this run lives (or none has said so yet), else FAILED."""
        said: dict[int, float] = {}
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            pid = None if entry.dagster_event is None else entry.dagster_event.engine_event_data.metadata.get("pid")
            if pid is not None:
                said[int(str(pid.value))] = entry.timestamp
        if not said or any(is_alive(pid, at) for pid, at in said.items()):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {', '.join(map(str, said))} is gone")


def is_alive(pid: int, seen_at: float) -> bool:
    """Whether process `pid` lives and is the one that was seen at that time (seconds since 1970), not a later one."""
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
    except (OSError, StopIteration):
        return not Path("/proc/self").exists()  # gone since; without /proc the number is all there is
    started = int(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and started <= seen_at + EARLY_S
