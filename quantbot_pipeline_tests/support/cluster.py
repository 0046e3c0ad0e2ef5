"""A cluster on this machine: Postgres, Redis, an S3 server, a daemon, and Celery workers that share nothing else.

Each program is a process with a home of its own, set up as `deploy/compose/` does it. Belongs here: starting, killing and asking
them. Does not: what a test makes of it.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill

from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.manifest import RunManifest
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support import postgres
from quantbot_pipeline_tests.support.object_store import CREDENTIALS, options
from quantbot_pipeline_tests.support.servers import Program

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
BIN = Path(sys.executable).parent
OVER = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
# As in production, but for the pauses: a test would spend its time waiting.
HASTE = {
    "poll_interval_seconds: 15": "poll_interval_seconds: 2",
    "free_slots_after_run_end_seconds: 15": "free_slots_after_run_end_seconds: 2",
    "patience_seconds: 60": "patience_seconds: 30",
    "start_timeout_seconds: 600": "start_timeout_seconds: 120",
}


def services() -> dict[str, Any]:
    """The services of deploy/compose/compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    return found


def free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Redis:
    """A broker in a folder of its own, with its log of appended commands: a restart forgets nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        import redis

        command = ["redis-server", "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--appendonly", "yes", "--save", "", "--bind", "127.0.0.1"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip  # a table: what belongs together stands on one line
        with redis.Redis(port=self.port) as client:
            _until(client.ping, redis.ConnectionError)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def restart(self, away_s: float) -> None:
        """Kill it, and start it again after a while."""
        self.kill()
        time.sleep(away_s)
        self.start()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """A running broker; skips the test where Redis is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs Redis (on Debian: apt-get install redis-server)")
    made = Redis(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def crash(db: postgres.Postgres, away_s: float) -> None:
    """Crash a Postgres server, and start it again after a while as it was started before."""
    import psycopg2

    data = db.folder / "data"
    pid = int((data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    time.sleep(away_s)
    command = shlex.split((data / "postmaster.opts").read_text())
    owner: Any = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with (db.folder / "log").open("ab") as log:
        subprocess.Popen(command, cwd="/tmp", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **owner)
    _until(lambda: psycopg2.connect(db.url("postgres")).close() is None, psycopg2.OperationalError)


def _until(ready: Callable[[], object], refused: type[Exception]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(refused):
            if ready():
                return
        time.sleep(0.05)
    raise AssertionError("a server did not start within a minute")


class Cluster:
    """The servers, the daemon and the workers; processes: how many these have together."""

    def __init__(self, folder: Path, db: postgres.Postgres, redis: Redis, **environment: str) -> None:
        self.folder, self.db, self.redis = folder, db, redis
        self.environment = {
            # The driver by its name: SQLAlchemy 2.1 takes psycopg 3 without it.
            "DAGSTER_POSTGRES_URL": db.make_database().replace("postgresql://", "postgresql+psycopg2://"),
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": "disabled://",
            **environment,
        }
        self.processes = 2
        self.workers: dict[str, Program] = {}
        self.daemon: Program | None = None

    def machine(self, name: str) -> Path:
        """Make the home of a machine that joins, with nothing in it; return it."""
        home = self.folder / name
        if not home.exists():
            home.mkdir()
            text = (COMPOSE / "dagster.yaml").read_text()
            for slow, quick in HASTE.items():
                assert slow in text, slow
                text = text.replace(slow, quick)
            at_once = "max_concurrent_runs: 2"
            assert at_once in text
            (home / "dagster.yaml").write_text(text.replace(at_once, f"max_concurrent_runs: {self.processes}"))
        return home

    def start_daemon(self) -> None:
        """Start the daemon, and the code server that it asks."""
        command = [str(BIN / "dagster-daemon"), "run", "-m", "quantbot_pipeline.definitions"]
        self.daemon = Program(self.machine("daemon"), command, **self.environment)

    def start_worker(self, name: str, month_s: float = 0) -> None:
        """Start a worker of one process; each month takes it so much longer."""
        slow = ["-I", "quantbot_pipeline_tests.support.slow_months"] if month_s else []
        command = [str(BIN / "celery"), *services()["worker"]["command"][1:], "-n", f"{name}@%h", *slow]
        self.workers[name] = Program(self.machine(name), command, SLOW_MONTH_S=str(month_s), **self.environment)

    def wait_for_workers(self) -> None:
        """Return when all workers take tasks."""
        for name, worker in self.workers.items():
            worker.wait(f"worker {name}", lambda worker=worker: " ready." in worker.log.read_text())  # type: ignore[misc]

    def kill_worker(self, name: str) -> None:
        """End a worker with all its processes at once, as when its machine loses power."""
        worker = self.workers.pop(name)
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    def stop(self) -> None:
        """End all programs at once."""
        for program in [*self.workers.values(), *([self.daemon] if self.daemon else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()

    def logs(self) -> str:
        """The end of what each program said."""
        return "\n".join(f"--- {log}\n{log.read_text()[-2000:]}" for log in sorted(self.folder.glob("*/*.log")))


@contextlib.contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """A cluster without a worker; it ends with the block. Skips the test where Postgres or Redis is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    with redis_server(folder) as redis, postgres.postgres_server() as db:
        made = Cluster(folder, db, redis, **environment)
        try:
            yield made
        finally:
            made.stop()


def in_store(endpoint: str, bucket: str, months_a_run: int, first: str) -> dict[str, str]:
    """The environment of every machine of a cluster: where runs and inputs lie, and how a backfill is cut."""
    return {
        **CREDENTIALS,
        "AWS_EC2_METADATA_DISABLED": "true",
        "QUANTBOT_RUNS": f"s3://{bucket}/lab",
        "QUANTBOT_INPUTS": f"s3://{bucket}/inputs",
        "QUANTBOT_STORE_OPTIONS": json.dumps(options(endpoint)),
        "QUANTBOT_BACKFILL_MONTHS": str(months_a_run),
        "QUANTBOT_PARTITIONS_START": first,
        "QUANTBOT_MEMORY_LIMIT": "256MB",
    }


# --- backfills --------------------------------------------------------------------------------------------------------


def launch_backfill(
    instance: dg.DagsterInstance, defs: dg.Definitions, keys: Sequence[Sequence[str]], months: Sequence[str]
) -> str:
    """Ask for a backfill as the web UI does; return its id."""
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=f"backfill-{time.time_ns()}",
        asset_graph=defs.resolve_asset_graph(),
        partition_names=list(months),
        asset_selection=[dg.AssetKey(list(key)) for key in keys],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id


def status_of(instance: dg.DagsterInstance, backfill: str) -> str:
    """The status of a backfill."""
    found = instance.get_backfill(backfill)
    assert found is not None
    return found.status.value


def runs_of(instance: dg.DagsterInstance, backfill: str) -> list[dg.DagsterRun]:
    """The Dagster runs of a backfill, repetitions too."""
    return list(instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))


def committed(home: Home) -> list[RunManifest]:
    """The manifests of all committed runs of a home."""
    return [manifest for month in sorted(home.runs.listing().months) for _, manifest in home.runs.completed(month)]


def digests(home: Home) -> dict[tuple[str, str, str], str | None]:
    """{(month, run type and strategy, artifact): hash of what it says} of all committed runs."""
    return {
        (made.month, kind_of(made), name): entry.content_sha256
        for made in committed(home)
        for name, entry in made.artifacts.items()
    }


def kind_of(made: RunManifest) -> str:
    """What tells the kinds of run apart in a manifest."""
    return f"{made.run_type} {made.parameters.get('strategy_id')}"


def doubled(home: Home) -> dict[tuple[str, str], int]:
    """Months of which a kind of run was committed more than once."""
    counts = Counter((made.month, kind_of(made)) for made in committed(home))
    return {key: number for key, number in counts.items() if number > 1}


def home_of(folder: Path, environment: dict[str, str]) -> Home:
    """A home as one more machine of the cluster sees it."""
    return Home(
        Settings(
            home=folder,
            runs=environment["QUANTBOT_RUNS"],
            inputs=environment["QUANTBOT_INPUTS"],
            store_options=json.loads(environment["QUANTBOT_STORE_OPTIONS"]),
        )
    )
