"""A cluster: workers that share nothing but Postgres, Redis and an object store make what one machine makes, whatever is killed.

The servers and the workers are real processes (`support.cluster`). `make test` has one small backfill; the drills are of `make torture`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.config import make_config
from quantbot_pipeline.definitions import build_defs
from quantbot_pipeline.home import Home
from quantbot_pipeline.months import month_range
from quantbot_pipeline_tests.support.builders import Row, call, candles, make_home
from quantbot_pipeline_tests.support.cluster import (
    OVER,
    Cluster,
    cluster,
    crash,
    digests,
    doubled,
    home_of,
    in_store,
    launch_backfill,
    runs_of,
    status_of,
)
from quantbot_pipeline_tests.support.object_store import Proxy, Store, leaks

TRUTH = (("truth", "paths"), ("truth", "features"), ("catalog", "runs"))
WITH_WALK = (*TRUTH, ("results", "walk_forward"))  # a month of it reads the months before
MONTHS = tuple(month_range("2022-01", "2023-12"))
PATIENCE_S = 900


def make_inputs(home: Path, months: tuple[str, ...], **settings: Any) -> Home:
    """A home with six calls of three callers in each month, or such inputs in an object store."""
    calls: list[Row] = []
    rows: list[Row] = []
    for month in months:
        for i in range(6):
            mint = f"{month}-token-{i}"
            calls.append(call(mint, f"{month}-{3 + 3 * i:02}T06:02", "abc"[i % 3], call_id=f"{month}-{i}"))
            rows += candles(mint, f"{month}-{3 + 3 * i:02}", 700)
    return make_home(home, calls, rows, **settings)


def share_inputs(home: Path, months: tuple[str, ...], environment: dict[str, str]) -> None:
    """Bring the same calls and candles into the object store, from a machine that is not of the cluster."""
    settings = home_of(home, environment).settings
    make_inputs(home, months, inputs=settings.inputs, store_options=settings.store_options)


class Backfill:
    """A backfill of a cluster, as a test watches it."""

    def __init__(self, made: Cluster, instance: dg.DagsterInstance, id_: str) -> None:
        self.cluster, self.instance, self.id = made, instance, id_
        self.began = time.monotonic()
        self.told: list[str] = []

    def tell(self, what: str) -> None:
        """Note what happened, and when."""
        self.told.append(f"{time.monotonic() - self.began:6.1f} s  {what}")

    def counts(self) -> dict[str, int]:
        """How many Dagster runs of the backfill have each status."""
        found: dict[str, int] = {}
        for run in runs_of(self.instance, self.id):
            found[run.status.value] = found.get(run.status.value, 0) + 1
        return found

    def wait(self, ready: Callable[[dict[str, int]], bool], what: str) -> None:
        """Return when the runs are so, or the backfill is over."""
        deadline, before = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < deadline:
            try:
                counts, status = self.counts(), status_of(self.instance, self.id)
            except Exception as e:  # Postgres is away, by a drill
                counts, status = {}, type(e).__name__
            if before != (before := f"{status} {counts}"):
                self.tell(before)
            if ready(counts) or status in OVER:
                return
            time.sleep(0.5)
        raise AssertionError(f"no {what}: {self.report()}")

    def finish(self) -> float:
        """Wait for the end, which must be a success; return how long it took."""
        self.wait(lambda _: False, "end")
        assert status_of(self.instance, self.id) == "COMPLETED_SUCCESS", self.report()
        return time.monotonic() - self.began

    def at_work_s(self) -> float:
        """From the beginning of the first run to the end of the last one."""
        records = self.instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": self.id}))
        return max(record.end_time or 0 for record in records) - min(record.start_time or 0 for record in records)

    def report(self) -> str:
        """What happened, and what the programs said."""
        return "\n".join(self.told) + "\n" + self.cluster.logs()


@contextmanager
def backfill(
    made: Cluster, monkeypatch: pytest.MonkeyPatch, keys: tuple[tuple[str, str], ...], months: tuple[str, ...]
) -> Iterator[Backfill]:
    """A backfill of these assets, launched by one more machine of the cluster once its workers are ready."""
    me = made.machine("me")
    for name, value in {**made.environment, "DAGSTER_HOME": str(me), "QUANTBOT_HOME": str(me)}.items():
        monkeypatch.setenv(name, value)
    made.wait_for_workers()
    with dg.DagsterInstance.get() as instance:
        yield Backfill(made, instance, launch_backfill(instance, build_defs(), keys, months))


def of_one_machine(inputs: Home, kinds: tuple[str, ...], months: tuple[str, ...]) -> dict[Any, Any]:
    """What the same inputs give on one machine, in its folder."""
    for month in months:
        for kind in kinds:
            run_month(inputs, kind, month, make_config({}))
    return digests(inputs)


def test_two_workers_make_what_one_machine_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, object_store: Store, credentials: None
) -> None:
    months = MONTHS[:4]
    inputs = make_inputs(tmp_path / "inputs", months)
    environment = in_store(object_store.endpoint, object_store.make_bucket("cluster"), 2, months[0])
    share_inputs(tmp_path / "elsewhere", months, environment)
    with cluster(tmp_path / "machines", **environment) as made:
        made.start_daemon()
        made.start_worker("one")
        made.start_worker("two")
        with backfill(made, monkeypatch, TRUTH, months) as watched:
            # Not for the end of the backfill: Dagster looks for that every half minute.
            watched.wait(lambda counts: counts == {"SUCCESS": 2}, "success of both runs, of two months each")
            assert watched.counts() == {"SUCCESS": 2}, watched.report()
            seen = home_of(made.machine("me"), environment)
            assert doubled(seen) == {}
            assert digests(seen) == of_one_machine(inputs, ("path-only",), months)
            assert {made.machine(name).joinpath("data/cache").exists() for name in ("one", "two")} == {True}
        said = made.workers["one"].log.read_text() + made.workers["two"].log.read_text()
        assert said.count("succeeded in") == 2
    assert leaks(tmp_path / "machines") == []


# --- drills -----------------------------------------------------------------------------------------------------------


def kill_worker(watched: Backfill, proxy: Proxy) -> None:
    """A worker's machine loses power in the middle of a run; a new one joins."""
    watched.wait(lambda counts: counts.get("STARTED", 0) >= 2, "run at work")
    time.sleep(4)
    watched.cluster.kill_worker("one")
    watched.tell("worker killed")
    time.sleep(3)
    watched.cluster.start_worker("three", MONTH_S)


def restart_redis(watched: Backfill, proxy: Proxy) -> None:
    """The broker crashes, and is back half a minute later: runs end meanwhile, and others are to be launched."""
    watched.wait(lambda counts: counts.get("STARTED", 0) >= 2, "run at work")
    watched.tell("Redis killed")
    watched.cluster.redis.restart(away_s=30)
    watched.tell("Redis is back")


def crash_postgres(watched: Backfill, proxy: Proxy) -> None:
    """Dagster's storage crashes, and is back 20 seconds later: Dagster itself tries for eleven."""
    watched.wait(lambda counts: counts.get("STARTED", 0) >= 2, "run at work")
    watched.tell("Postgres crashed")
    crash(watched.cluster.db, away_s=20)
    watched.tell("Postgres is back")


def cut_store(watched: Backfill, proxy: Proxy) -> None:
    """The object store is unreachable for a minute."""
    watched.wait(lambda counts: counts.get("STARTED", 0) >= 2, "run at work")
    proxy.begin(lambda *_: "cut")
    watched.tell("store cut off")
    time.sleep(60)
    proxy.begin()
    watched.tell("store is back")


DRILLS = (kill_worker, restart_redis, crash_postgres, cut_store)
MONTH_S = 3.0


@pytest.mark.torture
@pytest.mark.parametrize(
    "drills", [*((drill,) for drill in DRILLS), DRILLS], ids=lambda d: "+".join(f.__name__ for f in d)
)
def test_nothing_is_lost_or_doubled(
    drills: tuple[Callable[[Backfill, Proxy], None], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    object_store: Store,
    credentials: None,
) -> None:
    months = MONTHS if len(drills) > 1 else MONTHS[:12]
    inputs = make_inputs(tmp_path / "inputs", months)
    bucket = object_store.make_bucket("drill-" + str(time.time_ns()))
    with Proxy(object_store.endpoint) as proxy:
        environment = in_store(proxy.endpoint, bucket, 3, months[0])
        share_inputs(tmp_path / "elsewhere", months, environment)
        with cluster(tmp_path / "machines", **environment) as made:
            made.start_daemon()
            made.start_worker("one", MONTH_S)
            made.start_worker("two", MONTH_S)
            with backfill(made, monkeypatch, WITH_WALK, months) as watched:
                for number, drill in enumerate(drills):
                    watched.wait(lambda counts, n=number: counts.get("SUCCESS", 0) >= n, "progress")  # type: ignore[misc]
                    drill(watched, proxy)
                took = watched.finish()
                watched.tell(f"finished in {took:.0f} s; runs {watched.counts()}")
                print("\n".join(watched.told))
                seen = home_of(made.machine("me"), environment)
                assert doubled(seen) == {}, watched.report()
                assert digests(seen) == of_one_machine(inputs, ("path-only", "walk-forward"), months)
    assert leaks(tmp_path / "machines") == []


@pytest.mark.torture
def test_two_workers_take_at_most_six_tenths_of_the_time_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, object_store: Store, credentials: None
) -> None:
    took: dict[int, float] = {}
    for workers in (1, 2):
        bucket = object_store.make_bucket("bench-" + str(time.time_ns()))
        environment = in_store(object_store.endpoint, bucket, 3, MONTHS[0])
        share_inputs(tmp_path / f"elsewhere-{workers}", MONTHS, environment)
        with cluster(tmp_path / f"machines-{workers}", **environment) as made:
            made.processes = workers
            made.start_daemon()
            for number in range(workers):
                made.start_worker(f"w{number}", MONTH_S)
            with backfill(made, monkeypatch, TRUTH, MONTHS) as watched:
                watched.wait(lambda counts: counts == {"SUCCESS": 8}, "eight runs")
                assert watched.counts() == {"SUCCESS": 8}, watched.report()
                took[workers] = watched.at_work_s()
    print(f"24 months of {MONTH_S} s: one worker {took[1]:.0f} s, two {took[2]:.0f} s, {took[2] / took[1]:.2f}")
    assert took[2] <= 0.6 * took[1]
