"""The catalog under load: ten thousand committed runs indexed and queried; a thousand runs against MLflow, if that is installed.

Runs are committed through the real protocol with small artifacts and without waiting for the disk: not the writing is measured.
"""

import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.measuring import interleaved, median, peak_memory_mb, table, title
from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog, query_runs
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.months import iso_ms, months_before
from quantbot_pipeline.runs.commit import StagedRun
from quantbot_pipeline.runs.manifest import DagsterRef, Dataset, RunManifest, SchemaVersion, Timing
from quantbot_pipeline.runs.store import SETTLED_S, LocalRuns

NEWEST, MONTHS, ROWS = "2026-06", 60, 5
TYPES = ("alerts", "paths", "features", "errors")
COMPARED = 1_000


def run(options: Namespace) -> None:
    """Print CPU seconds of what a catalog is for."""
    with tempfile.TemporaryDirectory() as folder:
        base, catalog = Path(folder, "runs"), Path(folder, "catalog.duckdb")
        started = time.process_time()
        commit_runs(base, options.runs)
        title(
            f"{options.runs:,} runs of {len(TYPES)} artifacts in {MONTHS} months, committed in {_ms(started)} ms of CPU"
        )
        started = time.process_time()
        registered = sync(Catalog(catalog, LocalRuns(base))).registered
        whole = _ms(started)
        time.sleep(SETTLED_S)  # months that have just changed are looked at once more
        sync(Catalog(catalog, LocalRuns(base)))
        with duckdb.connect(str(catalog), read_only=True) as con:
            rows = con.execute("SELECT count(*) FROM paths").fetchall()[0][0]
        works: dict[str, Callable[[], object]] = {
            "sync, nothing new": lambda: sync(Catalog(catalog, LocalRuns(base))),
            "the latest 20 runs": lambda: query_runs(Catalog(catalog, LocalRuns(base)), limit=20),
            "opening an empty DuckDB, to compare": lambda: duckdb.connect().close(),
            f"count of all {rows:,} paths": lambda: _count(catalog),
        }
        spent = interleaved(works, options.repeats)
        table(
            ["work", "CPU ms"],
            [(f"sync of all {registered:,}", whole), *((name, f"{median(s) * 1e3:.1f}") for name, s in spent.items())],
        )
        print(f"peak memory {peak_memory_mb():.0f} MB, catalog file {catalog.stat().st_size / 1e6:.1f} MB")
    _compare_with_mlflow(options)


def _ms(started: float) -> str:
    return f"{(time.process_time() - started) * 1e3:,.0f}"


def _count(catalog: Path) -> None:
    with duckdb.connect(str(catalog), read_only=True) as con:
        con.execute("SELECT count(*) FROM paths").fetchall()


def commit_runs(base: Path, n: int) -> None:
    """Commit so many small runs, spread over the months."""
    base.mkdir(parents=True)
    tables = {name: _rows(name) for name in TYPES}
    fsync, os.fsync = os.fsync, lambda fd: None
    try:
        for i in range(n):
            with StagedRun(base, months_before(NEWEST, i % MONTHS)) as staged:
                for name, rows in tables.items():
                    staged.write(name, rows)
                staged.commit(_manifest(staged, staged.write_logs("made by a benchmark\n", ""), i))
    finally:
        os.fsync = fsync


def _rows(artifact_type: str) -> pa.Table:
    values = {"int64": 1, "double": 0.5, "bool": True, "string": "text"}
    fields = [f for f in ARTIFACTS[artifact_type][1] if f.name != "run_id"]
    n = 0 if artifact_type == "errors" else ROWS
    return pa.table({f.name: pa.array([values[str(f.type)]] * n, f.type) for f in fields})


def _manifest(staged: StagedRun, logs: dict[str, str], i: int) -> RunManifest:
    moment = iso_ms(1_767_225_600_000 + i * 1_000)
    return RunManifest(
        run_id=staged.run_id,
        run_type="path-only",
        month=staged.month,
        created_at=moment,
        started_at=moment,
        completed_at=moment,
        status="completed",
        git_commit="0" * 40,
        git_branch="main",
        git_dirty=False,
        dataset=Dataset(
            from_=moment, to=moment, interval="5m", calls_count=ROWS, calls_excluded=0, fingerprint="0" * 64
        ),
        parameters={"config_hash": f"{i % 7:016}", "latency_ms": 60_000, "horizon_ms": 172_800_000, "interval": "5m"},
        schema_version=SchemaVersion(),
        artifacts=staged.artifacts,
        timing=Timing(total_ms=10.0),
        logs=logs,
        dagster=DagsterRef(),
        versions={"quantbot": "0"},
    )


def _compare_with_mlflow(options: Namespace) -> None:
    """Register runs that exist, then ask for the latest 20: this catalog and MLflow's own store, both in files."""
    if find_spec("mlflow") is None:
        print("MLflow is not installed (pip install mlflow, in an environment of its own): not compared")
        return
    import mlflow
    from mlflow.tracking import MlflowClient

    title(f"Registering {COMPARED:,} runs and asking for the latest 20; MLflow {mlflow.__version__} with SQLite")
    with tempfile.TemporaryDirectory() as folder:
        base, catalog = Path(folder, "runs"), Path(folder, "catalog.duckdb")
        commit_runs(base, COMPARED)
        started = time.process_time()
        sync(Catalog(catalog, LocalRuns(base)))
        ours = [_ms(started)]
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.create_experiment("calls", artifact_location=f"{folder}/artifacts")
        started = time.process_time()
        for i in range(COMPARED):
            entity = client.create_run(experiment, tags={"month": f"{i % MONTHS}", "run_type": "path-only"})
            client.log_batch(entity.info.run_id, params=_as_params(i))
            client.set_terminated(entity.info.run_id)
        theirs = [_ms(started)]
        works: dict[str, Callable[[], object]] = {
            "ours": lambda: query_runs(Catalog(catalog, LocalRuns(base)), limit=20),
            "theirs": lambda: client.search_runs([experiment], order_by=["attribute.start_time DESC"], max_results=20),
        }
        spent = interleaved(works, options.repeats)
        ours.append(f"{median(spent['ours']) * 1e3:.1f}")
        theirs.append(f"{median(spent['theirs']) * 1e3:.1f}")
    head = ["CPU ms", f"register {COMPARED:,} runs", "latest 20"]
    table(head, [("this catalog, every byte verified", *ours), ("MLflow, parameters and tags only", *theirs)])


def _as_params(i: int) -> list:
    from mlflow.entities import Param

    values = {"config_hash": f"{i % 7:016}", "latency_ms": "60000", "horizon_ms": "172800000", "interval": "5m"}
    return [Param(name, value) for name, value in values.items()]
