"""The file system primitives: nothing half written is ever in a place where it counts."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import filelock
import pytest

from quantbot_pipeline.duck import published_duckdb
from quantbot_pipeline.durable import (
    disk_errors,
    disk_fault,
    locked,
    replace,
    replacing,
    scratch_folder,
    sha256_file,
    write_bytes,
)
from quantbot_pipeline.errors import IntegrityError, StoreError


def publish(target: Path, value: int) -> None:
    with published_duckdb(target, 1) as publication:
        con = publication.connect()
        con.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER)")
        con.execute("INSERT INTO t VALUES (?)", [value])
        publication.changed = True


def published(target: Path) -> list[int]:
    with duckdb.connect(str(target), read_only=True) as con:
        return [x for (x,) in con.execute("SELECT x FROM t ORDER BY x").fetchall()]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_files_are_written_once_and_replaced_whole(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_bytes(first, b"one")
    with pytest.raises(FileExistsError):
        write_bytes(first, b"two")
    write_bytes(second, b"two")
    with first.open("rb") as reader:
        replace(second, first)
        assert reader.read() == b"one", "whoever has the old file open keeps it"
    assert (first.read_bytes(), second.exists()) == (b"two", False)
    assert sha256_file(first) == hashlib.sha256(b"two").hexdigest()


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for content in ("one", "two"):
        with replacing(target) as temporary:
            temporary.write_text(content)
            assert target.exists() == (content == "two")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error), replacing(target) as temporary:
            temporary.write_text("three")
            raise error
    assert names(tmp_path) == ["x"] and target.read_text() == "two"


HOLDER = """
import sys, time
from pathlib import Path
from quantbot_pipeline.durable import locked
with locked(Path(sys.argv[1]), 1):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=r"lock: another process has held this lock for 0 s"), locked(path, 0):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(path, 0):
        pass


OWNER = """
import sys, time
from pathlib import Path
from quantbot_pipeline.durable import scratch_folder
with scratch_folder(Path(sys.argv[1]), ".x.spill-") as folder:
    (folder / "inside").mkdir()
    print(folder.name, flush=True)
    time.sleep(60)
"""


def test_a_scratch_folder_goes_with_its_owner_and_at_the_next_use_if_that_was_killed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path, ".x.spill-") as folder:
        (folder / "file").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
        raise ZeroDivisionError
    assert names(tmp_path) == []
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        left = owner.stdout.readline().strip()
        # Of somebody else, however alike: another prefix, and what has no lock beside it.
        others = [f".x.spilled-{'0' * 32}.lock", f".x.spill-{'0' * 32}"]
        for name in others:
            (tmp_path / name).mkdir()
        for _ in range(2):  # the owner lives: nobody takes its folder away
            with scratch_folder(tmp_path, ".x.spill-"), scratch_folder(tmp_path, ".x.spill-"):
                assert len(names(tmp_path)) == len(others) + 2 * 3
            assert names(tmp_path) == sorted([*others, left, f"{left}.lock"])
    finally:
        owner.kill()
        owner.communicate()
    assert (tmp_path / left / "inside").exists()
    with scratch_folder(tmp_path, ".x.spill-"):
        assert not (tmp_path / left).exists()
    assert names(tmp_path) == sorted(others)


def test_a_lock_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", 0) as check:
        check()
        (tmp_path / "lock").unlink()
        with locked(tmp_path / "lock", 0) as check_other:  # another process gets one of the same name
            check_other()
            with pytest.raises(StoreError, match="lock: removed while it was held"):
                check()
    target = tmp_path / "x.duckdb"
    publish(target, 1)
    with pytest.raises(StoreError, match="removed while it was held"), published_duckdb(target, 1) as publication:
        publication.connect().execute("INSERT INTO t VALUES (2)")
        publication.changed = True
        (tmp_path / ".x.duckdb.lock").unlink()
    assert published(target) == [1]


@pytest.mark.parametrize("another", [False, True], ids=["removed", "made again"])
def test_a_lock_that_is_taken_away_while_it_is_taken_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    path = tmp_path / "lock"
    acquire = filelock.FileLock.acquire

    def acquire_and_lose(lock: filelock.FileLock) -> object:
        taken = acquire(lock)
        path.unlink()
        if another:
            path.touch()
        return taken

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire_and_lose)
    with pytest.raises(StoreError, match="lock: removed while it was held"), locked(path, 0):
        pytest.fail("nothing may be written under a lock that guards no name")
    monkeypatch.undo()
    with locked(path, 0) as check:
        check()


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with pytest.raises(StoreError, match="lock: this file system has no locks"), locked(tmp_path / "lock", 0):
        pass


def test_a_failing_disk_is_told_from_a_wrong_file(tmp_path: Path) -> None:
    told = r"here: No space left on device; free space there \(`quantbot prune`"
    with pytest.raises(StoreError, match=told), disk_errors(tmp_path / "here"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no such file")
    assert disk_fault(duckdb.IOException("IO Error: Corrupt database file: checksum")) is None
    assert disk_fault(duckdb.FatalException("FATAL Error: fsync failed!")) == "fsync failed"


def test_a_publication_replaces_only_what_changed(tmp_path: Path) -> None:
    target = tmp_path / "x.duckdb"
    publish(target, 1)
    before = target.stat()
    with published_duckdb(target, 1) as publication:
        publication.connect().execute("INSERT INTO t VALUES (99)")  # but nothing is marked as changed
    with pytest.raises(ZeroDivisionError), published_duckdb(target, 1) as publication:
        publication.connect().execute("INSERT INTO t VALUES (99)")
        publication.changed = True
        raise ZeroDivisionError
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with duckdb.connect(str(target), read_only=True) as reader:
        publish(target, 2)
        assert reader.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert published(target) == [1, 2]
    assert names(tmp_path) == [".x.duckdb.lock", "x.duckdb"]


def test_a_fresh_start_forgets_what_was_changed(tmp_path: Path) -> None:
    target = tmp_path / "x.duckdb"
    publish(target, 1)
    with published_duckdb(target, 1) as publication:
        publication.connect().execute("INSERT INTO t VALUES (2)")
        publication.start_empty()
        publication.connect().execute("CREATE TABLE t AS SELECT 3 AS x")
        publication.changed = True
    assert published(target) == [3]
    assert names(tmp_path) == [".x.duckdb.lock", "x.duckdb"]


def test_copies_of_dead_writers_are_removed_and_no_others(tmp_path: Path) -> None:
    # The name is no pattern: `x[12].duckdb` must not take `x1.duckdb`'s private copy away.
    target = tmp_path / "x[12].duckdb"
    orphans = [".x[12].duckdb.dead.tmp", ".x[12].duckdb.dead.tmp.wal"]
    others = [".x1.duckdb.alive.tmp", "x[12].duckdb.tmp", ".x[12].duckdb.memo.json"]
    for name in (*orphans, *others):
        (tmp_path / name).touch()
    publish(target, 1)
    assert names(tmp_path) == sorted([*others, ".x[12].duckdb.lock", "x[12].duckdb"])


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "x.duckdb"
    target.write_bytes(b"text")
    with pytest.raises(IntegrityError, match=r"x\.duckdb: not readable as a DuckDB file"):
        publish(target, 1)
    assert target.read_bytes() == b"text"
    assert names(tmp_path) == [".x.duckdb.lock", "x.duckdb"]


WRITER = """
import duckdb, os, sys
con = duckdb.connect(sys.argv[1])
con.execute("INSERT INTO t VALUES (7)")
print("written", flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_a_foreign_writers_log_is_replayed_not_lost(tmp_path: Path) -> None:
    target = tmp_path / "x.duckdb"
    publish(target, 1)
    foreign = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert foreign.stdout is not None and foreign.stdout.readline() == "written\n"
        with pytest.raises(StoreError, match=r"x\.duckdb: another program has it open for writing"):
            publish(target, 2)
    finally:
        foreign.communicate()
    assert os.path.exists(f"{target}.wal")
    publish(target, 2)
    assert published(target) == [1, 2, 7]
    assert names(tmp_path) == [".x.duckdb.lock", "x.duckdb"]
