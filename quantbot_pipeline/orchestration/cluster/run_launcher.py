"""The run launcher of a cluster: Dagster's Celery launcher, and it notices that a worker is gone.

Dagster's asks Celery's result store, where a task whose worker was killed is `STARTED` for ever, and one whose run could not say
its end is `SUCCESS` (dagster#33493 is open). This one asks the workers themselves which tasks they have, and needs no result store.

Belongs here: giving a run to the broker, and looking after it. Does not: what a run does; see `docs/cluster.md` for the drills.
"""

import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

# Dagster's own launchers have these from here; no public name stands for them.
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus

# What a launcher gets of its part of dagster.yaml: no public name stands for it.
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from kombu.exceptions import OperationalError

from quantbot_pipeline.orchestration.launch import LAUNCHED_TAG
from quantbot_pipeline.orchestration.partitions import months_tag
from quantbot_pipeline.orchestration.waiting import CATALOG_WRITER, INPUT_WRITER

ANSWER_S = 3.0  # workers answer in milliseconds; a busy machine takes longer
FRESH_S = 5.0  # one question serves all runs of a look
BROKER_S = 120.0  # a broker that restarts is back by then
PAUSE_S = 2.0
FORGET_S = 3600.0


class ClusterRunLauncher(CeleryRunLauncher):
    """Dagster's Celery launcher with a pulse; named in `deploy/compose/dagster.yaml`."""

    def __init__(self, patience_seconds: int, inst_data: ConfigurableClassData | None = None, **config: Any) -> None:
        super().__init__(inst_data=inst_data, **config)
        self.patience_s = patience_seconds
        self._seen: dict[str, float] = {}  # of a run: when a worker last had it
        self._asked: tuple[float, set[str]] = (-FRESH_S, set())

    @classmethod
    def config_type(cls) -> Any:
        """Return Dagster's configuration, and how long no worker may have a run before it is given up."""
        about = "Seconds for which no worker has a run before it counts as dead: longer than a restart of the broker."
        patience = dg.Field(dg.IntSource, is_required=False, default_value=60, description=about)
        return {**CeleryRunLauncher.config_type(), "patience_seconds": patience}  # type: ignore[dict-item]

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "ClusterRunLauncher":
        """Return the launcher of a dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give a run to the workers. Dagster fails a run that cannot be launched, so a broker that restarts is waited for."""
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, months_tag(run.tags))
        self.make_pools()
        deadline = time.monotonic() + BROKER_S
        while True:
            try:
                return super().launch_run(context)
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_S)

    def make_pools(self) -> None:
        """Make the pools that are not there yet. Two runs that make one at once in Postgres would end one of them with an error."""
        storage = self._instance.event_log_storage
        for pool in {CATALOG_WRITER, INPUT_WRITER} - storage.get_concurrency_keys():
            storage.initialize_concurrency_limit_to_default(pool)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING while a worker has the run, or had it a moment ago, or nobody can be asked; else FAILED.

        A run of the command line is in no worker, and nobody can be asked.
        """
        if LAUNCHED_TAG in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        now = time.monotonic()
        try:
            at_work = self._at_work(now)
        except (OperationalError, OSError) as e:  # the broker is away: the runs go on
            self._seen = dict.fromkeys(self._seen, now)
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"the broker does not answer ({type(e).__name__})")
        if any(run.run_id in task for task in at_work):
            self._seen[run.run_id] = now
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        absent = now - self._seen.setdefault(run.run_id, now)
        if absent < self.patience_s:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"no worker has had the run for {absent:.0f} s")

    def _at_work(self, now: float) -> set[str]:
        """Return what the workers say of the tasks that they have; a task names its run."""
        asked, tasks = self._asked
        if now - asked >= FRESH_S:
            answers = self.celery.control.inspect(timeout=ANSWER_S).active() or {}
            tasks = {str(task) for of_worker in answers.values() for task in of_worker}
            self._asked = now, tasks
            self._seen = {run: at for run, at in self._seen.items() if now - at < FORGET_S}
        return tasks
