"""A run that no worker has is given up after a while, and none while the broker is away."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from quantbot_pipeline.orchestration.cluster.run_launcher import ClusterRunLauncher
from quantbot_pipeline.orchestration.launch import launched_tag
from quantbot_pipeline_tests.support.cluster import Redis, redis_server
from quantbot_pipeline_tests.support.postgres import Postgres


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    with redis_server(tmp_path) as made:
        yield made


@contextlib.contextmanager
def launcher(broker: Redis, patience_seconds: int) -> Iterator[ClusterRunLauncher]:
    made = ClusterRunLauncher(patience_seconds, broker=broker.url, backend="disabled://", default_queue="dagster")
    yield made
    made.celery.close()


def run(**tags: str) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="everything", run_id=str(uuid.uuid4()), tags=tags)


def test_a_run_that_no_worker_has_is_given_up_after_a_while(broker: Redis) -> None:
    with launcher(broker, 60) as made:
        lost = run()
        assert made.check_run_worker_health(lost).status == WorkerStatus.RUNNING
        made.patience_s = 0
        assert made.check_run_worker_health(lost).status == WorkerStatus.FAILED


def test_no_run_is_given_up_while_the_broker_is_away(broker: Redis) -> None:
    broker.kill()
    with launcher(broker, 0) as made:
        found = made.check_run_worker_health(run())
    assert found.status == WorkerStatus.RUNNING
    assert "the broker does not answer" in str(found.msg)


def test_a_run_of_the_command_line_is_no_business_of_the_workers(broker: Redis) -> None:
    with launcher(broker, 0) as made:
        assert made.check_run_worker_health(run(**launched_tag())).status == WorkerStatus.RUNNING


def test_the_pools_are_made_once_and_by_one(postgres: Postgres) -> None:
    """In Postgres, Dagster cannot make a pool that is there."""
    storage = {"postgres": {"postgres_url": postgres.make_database().replace("postgresql:", "postgresql+psycopg2:")}}
    launching = {"module": ClusterRunLauncher.__module__, "class": ClusterRunLauncher.__name__}
    pools = {"pools": {"default_limit": 1, "granularity": "op"}}
    with dg.instance_for_test(
        overrides={"storage": storage, "run_launcher": launching, "concurrency": pools}
    ) as instance:
        made = instance.run_launcher
        assert isinstance(made, ClusterRunLauncher)
        made.make_pools()
        made.make_pools()
        infos = instance.event_log_storage.get_concurrency_infos(["catalog_writer", "input_writer"])
        assert {pool: info.slot_count for pool, info in infos.items()} == {"catalog_writer": 1, "input_writer": 1}
