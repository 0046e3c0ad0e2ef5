"""Replication: runs arrive whole, byte for byte, once; what differs is named and left; whatever stops a copy, the next one goes on."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.runs.manifest import MANIFEST_NAME, SUCCESS_NAME, read_manifest
from quantbot_pipeline.runs.notes import RunNotes, name_run, read_notes, tag_run
from quantbot_pipeline.runs.replicate import Comparison, compare, lacking, lag_of, replicate
from quantbot_pipeline.runs.store import LocalRuns, RunStore, run_dirs
from quantbot_pipeline.runs.verify import IncompleteRunError, check_run
from quantbot_pipeline_tests.support.builders import artifact_rows, make_manifest
from quantbot_pipeline_tests.support.object_store import Proxy, Store, object_runs

WAYS = ("folder-folder", "folder-objects", "objects-folder", "objects-objects")
PATHS = "truth/paths.parquet"


class Place:
    """Runs somewhere, and a hand that reaches into what is kept there."""

    def __init__(self, runs: RunStore, write: Callable[[str, bytes], object], remove: Callable[[str], object]) -> None:
        self.runs, self.write, self.remove = runs, write, remove

    def commit(self, month: str = "2024-01", **changes: str) -> str:
        """Commit a small run; return its directory."""
        with self.runs.begin(month) as staged:
            staged.write("alerts", artifact_rows("alerts", 2))
            staged.write("paths", artifact_rows("paths", 2))
            logs = staged.write_logs("what it said\n", "")
            return "/".join(str(staged.commit(make_manifest(staged, logs, **changes))).split("/")[-2:])

    def bytes(self) -> dict[str, bytes]:
        """Every file of every run directory as it is now."""
        found = self.runs.listing()
        files = [f"{run_dir}/{inside}" for run_dir in run_dirs(found) for inside in found.contents(run_dir)]
        return {file: self.runs.read(file) for file in files}


def place_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    if kind == "folder":

        def write(file: str, content: bytes) -> None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)

        return Place(LocalRuns(folder), write, lambda file: (folder / file).unlink())
    request.getfixturevalue("credentials")
    store: Store = request.getfixturevalue("object_store")
    bucket = store.make_bucket(f"b{uuid.uuid4().hex}")
    runs = object_runs(store.endpoint, f"s3://{bucket}/lab", folder)
    (folder / ".probed.json").parent.mkdir(parents=True)
    (folder / ".probed.json").write_text(json.dumps({"quoted": True, "plain": True}))
    return Place(
        runs,
        lambda file, content: store.write(bucket, f"lab/{file}", content),
        lambda file: store.client.delete_object(Bucket=bucket, Key=f"lab/{file}"),
    )


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """A source and a destination, of every pair of kinds."""
    kinds = request.param.split("-")
    source, destination = (place_of(kind, request, tmp_path / f"{n}-{kind}") for n, kind in enumerate(kinds))
    return source, destination


@pytest.fixture(params=["folder", "objects"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """A folder as the source, and a destination of each kind."""
    return place_of("folder", request, tmp_path / "source"), place_of(request.param, request, tmp_path / "destination")


def believed(runs: RunStore) -> set[str]:
    """The run directories that a reader of a place believes, every byte of them verified."""
    found, seen = runs.listing(), set()
    for run_dir in run_dirs(found):
        try:
            found.examine(*run_dir.split("/"))
        except IncompleteRunError:
            continue
        with runs.fresh(run_dir) as folder:
            check_run(folder)
        seen.add(run_dir)
    return seen


# --- what is copied ---------------------------------------------------------------------------------------------------


def test_committed_runs_arrive_byte_for_byte_and_once(way: tuple[Place, Place], tmp_path: Path) -> None:
    source, destination = way
    runs = [source.commit(), source.commit("2024-02")]
    failed = source.commit("2024-02", status="failed")
    gone = source.commit()
    source.runs.to_trash([gone])
    source.write("2024-03/run_id=00000000-0000-4000-8000-000000000001/truth/paths.parquet", b"half")
    done = replicate(source.runs, destination.runs)
    assert (sorted(done.copied), done.faults, done.alike, done.missing) == (sorted(runs), {}, [], [])
    wanted = {file: content for file, content in source.bytes().items() if file.startswith(tuple(runs))}
    assert destination.bytes() == wanted and not any(file.startswith(failed) for file in wanted)
    assert believed(destination.runs) == set(runs)
    assert sync(Catalog(tmp_path / "there.duckdb", destination.runs)).runs == 2
    source.runs.to_trash([runs[0]])
    again = replicate(source.runs, destination.runs, verify=True)
    assert (again.copied, again.alike, again.faults) == ({}, [runs[1]], {})
    assert destination.bytes() == wanted, "what is deleted at the source stays at the destination"


def test_months_and_a_dry_run(to: tuple[Place, Place]) -> None:
    source, destination = to
    first, second = source.commit("2024-01"), source.commit("2024-02")
    planned = replicate(source.runs, destination.runs, dry_run=True)
    assert (planned.missing, planned.copied, destination.bytes()) == ([first, second], {}, {})
    assert [*replicate(source.runs, destination.runs, months=["2024-02"]).copied] == [second]
    assert lacking(source.runs, destination.runs).missing == [first]


def test_what_differs_is_named_and_left(to: tuple[Place, Place]) -> None:
    source, destination = to
    shorter, gone, more, *flipped, alike = sorted(source.commit() for _ in range(7))
    replicate(source.runs, destination.runs)
    destination.write(f"{shorter}/{PATHS}", b"PAR1")
    destination.remove(f"{gone}/{PATHS}")
    destination.write(f"{more}/truth/more.parquet", b"PAR1")
    for run_dir, file in zip(flipped, (PATHS, MANIFEST_NAME, SUCCESS_NAME), strict=True):
        was = destination.runs.read(f"{run_dir}/{file}")
        destination.write(f"{run_dir}/{file}", bytes([was[0] ^ 1]) + was[1:])
    before = destination.bytes()
    plain = replicate(source.runs, destination.runs)
    assert [why.split(":")[0] for why in plain.differing.values()] == [PATHS, PATHS, "truth/more.parquet"]
    assert [*plain.differing] == [shorter, gone, more] and plain.alike == [*flipped, alike]
    verified = replicate(source.runs, destination.runs, verify=True)
    assert [*verified.differing] == [shorter, gone, more, *flipped] and verified.alike == [alike]
    assert [verified.differing[run].split(":")[0] for run in flipped] == [PATHS, MANIFEST_NAME, SUCCESS_NAME]
    assert destination.bytes() == before and (verified.copied, verified.missing) == ({}, [])


def test_what_is_broken_at_the_source_is_not_copied(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source, destination = place_of("folder", request, tmp_path / "a"), place_of("objects", request, tmp_path / "b")
    *bad, good = sorted(source.commit() for _ in range(5))
    for run_dir, file in zip(bad, (PATHS, MANIFEST_NAME, SUCCESS_NAME, "logs/stdout.txt"), strict=True):
        was = source.runs.read(f"{run_dir}/{file}")
        source.write(f"{run_dir}/{file}", was[:-2] + bytes([was[-2] ^ 1]) + was[-1:])
    done = replicate(source.runs, destination.runs)
    assert ([*done.copied], [*done.broken], done.missing) == ([good], bad, bad)
    assert believed(destination.runs) == {good}
    assert [row["state"] for row in done.rows()] == ["broken"] * 4 + ["copied"]


# --- copies that were stopped -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("success", [None, b"", b"0a1b"], ids=["absent", "empty", "torn"])
def test_a_folder_without_its_success_is_finished(tmp_path: Path, success: bytes | None) -> None:
    source, destination = LocalRuns(tmp_path / "a"), LocalRuns(tmp_path / "b")
    run_dir = Place(source, lambda *_: None, lambda _: None).commit()
    whole = source.read(f"{run_dir}/{SUCCESS_NAME}")
    shutil.copytree(source.folder / run_dir, destination.folder / run_dir)
    said = destination.folder / run_dir / SUCCESS_NAME
    said.unlink()
    if success is not None:
        said.write_bytes(whole[: len(success)])
    left = destination.folder / ".staging" / run_dir[-36:]
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")
    assert [*replicate(source, destination).copied] == [run_dir]
    assert said.read_bytes() == whole and believed(destination) == {run_dir}
    assert list((destination.folder / ".staging").iterdir()) == []
    said.write_bytes(b"!")
    (done,) = replicate(source, destination).differing.items()
    assert done[0] == run_dir and "there already, with other bytes" in done[1] and said.read_bytes() == b"!"


def test_a_folder_without_its_success_that_holds_other_bytes_is_named_and_left(tmp_path: Path) -> None:
    source, destination = LocalRuns(tmp_path / "a"), LocalRuns(tmp_path / "b")
    run_dir = Place(source, lambda *_: None, lambda _: None).commit()
    shutil.copytree(source.folder / run_dir, destination.folder / run_dir)
    (destination.folder / run_dir / SUCCESS_NAME).unlink()
    changed = destination.folder / run_dir / PATHS
    changed.write_bytes(b"!" + changed.read_bytes()[1:])
    done = replicate(source, destination)
    assert "truth/paths.parquet: there already, with other bytes" in done.differing[run_dir]
    assert changed.read_bytes()[:1] == b"!" and believed(destination) == set()


def test_objects_of_a_stopped_copy_are_taken_and_others_are_named(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source, destination = place_of("folder", request, tmp_path / "a"), place_of("objects", request, tmp_path / "b")
    first, second = sorted([source.commit(), source.commit()])
    for file in (PATHS, MANIFEST_NAME):
        destination.write(f"{first}/{file}", source.runs.read(f"{first}/{file}"))
    destination.write(f"{second}/{PATHS}", b"somebody else's")
    done = replicate(source.runs, destination.runs)
    assert [*done.copied] == [first]
    assert "there already, with other bytes" in done.differing[second]
    assert believed(destination.runs) == {first}
    assert destination.runs.read(f"{second}/{PATHS}") == b"somebody else's"
    swept = object_runs_with_age(destination.runs, -10.0)
    with pytest.raises(StoreError, match="took longer than half"):
        replicate(source.runs, swept)
    assert destination.runs.read(f"{second}/{PATHS}") == source.runs.read(f"{second}/{PATHS}"), "too old: swept first"


def object_runs_with_age(runs: RunStore, age_s: float) -> RunStore:
    from dataclasses import replace

    from quantbot_pipeline.runs.objects import ObjectRuns

    assert isinstance(runs, ObjectRuns)
    return replace(runs, staging_max_age_s=age_s)


@pytest.fixture
def proxy(object_store: Store, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("quantbot_pipeline.bucket.FIRST_PAUSE_S", 0.0001)
    with Proxy(object_store.endpoint) as proxy:
        yield proxy


def test_a_copy_that_ends_at_a_request_is_finished_by_the_next(
    proxy: Proxy, object_store: Store, tmp_path: Path
) -> None:
    source = Place(LocalRuns(tmp_path / "source"), lambda *_: None, lambda _: None)
    runs = {source.commit(), source.commit()}
    url = f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"
    writer = object_runs(proxy.endpoint, url, tmp_path / "writer")
    writer.copies.require_honest_store()
    for request in (5, 9, 13):  # of a file, of the look at what is there, of a file of the second run
        proxy.begin(lambda n, method, path, request=request: "lost" if n >= request else None)  # type: ignore[misc]
        with pytest.raises(StoreError):
            replicate(source.runs, writer)
        proxy.begin()
        assert believed(object_runs(proxy.endpoint, url, tmp_path / f"reader-{request}")) <= runs
    replicate(source.runs, writer)
    there = Place(writer, lambda *_: None, lambda _: None)
    assert there.bytes() == source.bytes()
    assert replicate(source.runs, writer, verify=True).faults == {}


def test_two_replications_at_once_copy_each_run_once(to: tuple[Place, Place]) -> None:
    source, destination = to
    runs = {source.commit() for _ in range(4)}
    with ThreadPoolExecutor(2) as pool:
        both = [done.result() for done in [pool.submit(replicate, source.runs, destination.runs) for _ in "ab"]]
    assert all(done.faults == {} for done in both)
    assert believed(destination.runs) == runs and destination.bytes() == source.bytes()


# --- notes ------------------------------------------------------------------------------------------------------------


def test_names_and_tags_follow_and_those_of_the_destination_are_left(way: tuple[Place, Place]) -> None:
    source, destination = way
    run_id = source.commit()[-36:]
    name_run(source.runs.journal, run_id, "best")
    assert replicate(source.runs, destination.runs).notes == 1
    tag_run(source.runs.journal, run_id, ["x"])
    assert [replicate(source.runs, destination.runs).notes for _ in "ab"] == [1, 0]
    assert read_notes(destination.runs.journal) == {run_id: RunNotes("best", None, ("x",))}
    name_run(destination.runs.journal, run_id, "mine", move=True)
    tag_run(source.runs.journal, run_id, ["y"])
    assert [*replicate(source.runs, destination.runs).differing] == [".notes"]
    assert read_notes(destination.runs.journal) == {run_id: RunNotes("mine", None, ("x",))}


# --- how far behind ---------------------------------------------------------------------------------------------------


def test_places_are_compared_by_what_is_committed() -> None:
    def run(**more: int) -> dict[str, int]:
        return {"run.json": 100, "_SUCCESS": 65, "a": 1} | more

    half = {"run.json": 100, "a": 1}
    source = {"m/1": run(), "m/2": run(), "m/3": half, "m/4": run(), "m/5": run(), "m/6": run()}
    there = {"m/2": run(), "m/4": run(a=2), "m/5": half, "m/6": run(_SUCCESS=3), "m/7": run(b=1), "m/3": run()}
    assert compare(source, there) == Comparison(["m/1", "m/5", "m/6"], ["m/2"], {"m/4": "a: 2 bytes, 1 at the source"})


def test_the_lag_is_that_of_the_newest_runs_and_waiting_that_of_the_oldest_lacked(tmp_path: Path) -> None:
    source = Place(LocalRuns(tmp_path / "a"), lambda *_: None, lambda _: None)
    first, second, third = (source.commit(created_at=f"2024-06-01T00:0{minute}:00Z") for minute in (0, 3, 7))
    now_s = 1_717_200_000.0 + 10 * 60  # 00:10
    assert read_manifest(source.runs.open(first)).created_at == "2024-06-01T00:00:00Z"
    assert lag_of(source.runs, Comparison([], [first], {}), now_s) == (0, 0)
    assert lag_of(source.runs, Comparison([second, third], [first], {}), now_s) == (7 * 60, 7 * 60)
    assert lag_of(source.runs, Comparison([first, second], [third], {}), now_s) == (0, 10 * 60)
    assert lag_of(source.runs, Comparison([second, third], [], {}), now_s) == (4 * 60, 7 * 60)
