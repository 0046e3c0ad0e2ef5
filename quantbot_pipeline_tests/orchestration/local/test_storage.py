"""Dagster's storage that keeps its connections: what it makes is Dagster's own, and several processes share a home as before."""

import contextlib
import logging
import os
import re
import shutil
import sqlite3
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy.exc import DBAPIError

from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.orchestration.local import storage
from quantbot_pipeline.orchestration.local.storage import SUPPORTED, Engines
from quantbot_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


@dg.op
def nothing() -> None: ...


@dg.job
def job() -> None:
    nothing()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the databases of its instance: to make them takes seconds."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder))
        with open_instance(Home(Settings(home=folder))):
            return folder


@pytest.fixture
def instance(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(Home(Settings(home=tmp_path))) as made:
        yield made


def shard_of(home: Path, run_id: str) -> Path:
    return home / "history" / "runs" / f"{run_id}.db"


def inside(file: Path) -> tuple[list[str], list[str], str]:
    """What made a database, its version and its mode."""
    with contextlib.closing(sqlite3.connect(file)) as con:
        version = [v for (v,) in con.execute("SELECT version_num FROM alembic_version")]
        ((mode,),) = con.execute("PRAGMA journal_mode")
        return sorted(storage._schema_of(con)), version, mode


def say(instance: dg.DagsterInstance, run: dg.DagsterRun, text: str) -> None:
    instance.report_engine_event(text, run)


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    return sorted(entry.message for entry in instance.all_logs(run.run_id) if entry.message.startswith("said"))


def is_kept(instance: dg.DagsterInstance) -> bool:
    return type(instance.event_log_storage) is not SqliteEventLogStorage


def test_it_is_known_to_fit_the_dagster_that_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = [text for text in project["dependencies"] if re.match(r"dagster\b(?!-)", text)]
    major, minor = map(int, SUPPORTED.split("."))
    assert asked == f"dagster>={SUPPORTED},<{major}.{minor + 1}"
    assert dg.__version__.startswith(f"{SUPPORTED}.")


def test_an_event_log_is_what_dagster_makes(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert is_kept(instance)
    ours, plain = instance.create_run_for_job(job), tmp_path / "plain"
    assert storage._make_shard(str(tmp_path / "new.db"), str(shard_of(tmp_path, "index"))), "not by Dagster's long way"
    SqliteEventLogStorage(str(plain)).get_logs_for_run("a")
    say(instance, ours, "said")
    expected = inside(plain / "a.db")
    assert inside(shard_of(tmp_path, ours.run_id)) == inside(tmp_path / "new.db") == expected
    assert expected[2] == "wal"
    assert said(instance, ours) == ["said"]


def test_an_index_of_another_dagster_is_no_template(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """A home whose migration is due: Dagster itself makes the event logs of its runs."""
    with contextlib.closing(sqlite3.connect(shard_of(tmp_path, "index"))) as con:
        con.execute("ALTER TABLE event_logs ADD COLUMN later TEXT")
    assert not storage._make_shard(str(tmp_path / "new.db"), str(shard_of(tmp_path, "index")))
    run = instance.create_run_for_job(job)
    say(instance, run, "said")
    assert said(instance, run) == ["said"]
    assert "later" not in str(inside(shard_of(tmp_path, run.run_id)))


def test_under_another_dagster_it_is_the_plain_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dg, "__version__", "1.14.0")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING), open_instance(Home(Settings(home=tmp_path))) as plain:
        assert not is_kept(plain)
        run = plain.create_run_for_job(job)
        say(plain, run, "said")
        assert said(plain, run) == ["said"]
    assert "Dagster 1.14.0 is not 1.13.x" in caplog.text
    monkeypatch.undo()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(Home(Settings(home=tmp_path))) as ours:  # a home of the plain storage, afterwards
        assert is_kept(ours)
        assert said(ours, run) == ["said"]


def test_processes_share_a_home_and_a_fork_opens_its_own_connections(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = instance.create_run_for_job(job)
    say(instance, run, "said by the parent")
    children = []
    for child in range(3):
        if (pid := os.fork()) == 0:
            status = 1
            with contextlib.suppress(Exception):
                for n in range(10):
                    say(instance, run, f"said {child} {n}")
                say(instance, instance.create_run_for_job(job), "said")
                status = 0
            os._exit(status)
        children.append(pid)
    for n in range(10):
        say(instance, run, f"said parent {n}")
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert len(set(said(instance, run))) == 41
    assert len(instance.get_runs()) == 4
    for file in (tmp_path / "history").rglob("*.db"):
        with contextlib.closing(sqlite3.connect(file)) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_was_removed_is_not_written_to_any_more(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = instance.create_run_for_job(job)
    say(instance, run, "said before")
    for file in shard_of(tmp_path, run.run_id).parent.glob(f"{run.run_id}.db*"):
        file.unlink()
    with pytest.raises(DBAPIError, match="no such table"):
        say(instance, run, "said to nobody")
    copy = tmp_path / "copy.db"
    storage._make_shard(str(copy), str(shard_of(tmp_path, "index")))
    shutil.move(copy, shard_of(tmp_path, run.run_id))  # as from a backup
    say(instance, run, "said after")
    assert said(instance, run) == ["said after"]


def test_events_of_many_months_are_stored_together_or_not_at_all(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    months = dg.StaticPartitionsDefinition([f"2024-{month:02}" for month in range(1, 13)])

    @dg.asset(partitions_def=months, backfill_policy=dg.BackfillPolicy.single_run())
    def made() -> None: ...

    tags = {"dagster/asset_partition_range_start": "2024-01", "dagster/asset_partition_range_end": "2024-12"}
    commits = 0

    def counted(self: Engines, path: str) -> contextlib.AbstractContextManager[object]:
        nonlocal commits
        commits += 1
        return connection(self, path)

    connection = Engines.connection
    monkeypatch.setattr(Engines, "connection", counted)
    together, ran = commits, dg.materialize([made], instance=instance, tags=tags)
    together = commits - together
    monkeypatch.setenv(storage.BATCH_SIZE, "0")
    alone, again = commits, dg.materialize([made], instance=instance, tags=tags)
    alone = commits - alone
    assert together < alone - 20, "an event has two files"
    for run in (ran, again):
        found = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        assert sorted(str(record.partition_key) for record in found) == months.get_partition_keys()
    assert len(instance.fetch_materializations(dg.AssetKey("made"), limit=100).records) == 24
    events = instance.all_logs(ran.run_id)
    elsewhere = type(instance.event_log_storage)(str(tmp_path / "elsewhere"), Engines())  # type: ignore[call-arg]
    with pytest.raises(Exception, match="EventLogEntry"):
        elsewhere.store_event_batch([*events, "no event"])  # type: ignore[list-item]
    assert elsewhere.get_logs_for_run(ran.run_id) == []
    elsewhere.store_event_batch(events)
    assert elsewhere.get_logs_for_run(ran.run_id) == events


def test_a_connection_is_kept_and_dropped_after_an_error(tmp_path: Path) -> None:
    engines, path = Engines(), str(tmp_path / "a.db")
    with engines.connection(path) as first:
        kept = first.connection.dbapi_connection
        first.exec_driver_sql("CREATE TABLE t (x)")
    with engines.connection(path) as second:
        assert second.connection.dbapi_connection is kept
        with engines.connection(path) as inner:  # a second one at once
            assert inner.connection.dbapi_connection is not kept
    with pytest.raises(DBAPIError), engines.connection(path) as third:
        third.exec_driver_sql("INSERT INTO t VALUES (1)")
        third.exec_driver_sql("no SQL")
    with engines.connection(path) as fourth:
        assert fourth.connection.dbapi_connection is not kept
        assert fourth.exec_driver_sql("SELECT count(*) FROM t").fetchall() == [(0,)], "rolled back"
    opened = len(os.listdir("/proc/self/fd"))
    for n in range(2 * storage.MOST_KEPT):
        with engines.connection(str(tmp_path / f"{n}.db")) as other:
            other.exec_driver_sql("CREATE TABLE t (x)")
    assert len(os.listdir("/proc/self/fd")) - opened < 3 * storage.MOST_KEPT  # the file, its log and its index
    assert len(engines._kept) == storage.MOST_KEPT
    engines.dispose()
    assert not list(tmp_path.glob("*-wal"))
