"""What every place for runs promises: a folder on this machine and an object store pass the same tests."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantbot_pipeline.catalog.catalog import Catalog, artifact_path, list_runs, quarantined
from quantbot_pipeline.catalog.last_sync import due_months, unregistered_runs
from quantbot_pipeline.catalog.room import answering
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, IntegrityError
from quantbot_pipeline.runs.inspection import inspect_run
from quantbot_pipeline.runs.manifest import RunDirectory, read_manifest
from quantbot_pipeline.runs.notes import RunNotes, name_run, note_run, read_notes, tag_run
from quantbot_pipeline.runs.objects import ObjectRuns
from quantbot_pipeline.runs.store import LocalRuns, RunStore
from quantbot_pipeline.runs.verify import IncompleteRunError, check_run, examine_run, read_artifact
from quantbot_pipeline_tests.support.builders import artifact_rows, make_manifest
from quantbot_pipeline_tests.support.object_store import Store, object_runs

FUTURE_MS = 4_000_000_000_000


class Place:
    """A store of runs, and a hand that reaches into what it keeps."""

    def __init__(self, runs: RunStore, write: Callable[[str, bytes], None], names: Callable[[], list[str]]) -> None:
        self.runs, self.write, self.names = runs, write, names

    def commit(self, month: str = "2024-01", *, status: str = "completed") -> RunDirectory:
        """Commit a run of made-up artifacts through the real protocol."""
        with self.runs.begin(month) as staged:
            staged.write("alerts", artifact_rows("alerts", 2))
            staged.write("paths", artifact_rows("paths", 2, p0=[1.5, 2.5]))
            staged.write("errors", artifact_rows("errors", 0))
            logs = staged.write_logs("what it said\n", "")
            return staged.commit(make_manifest(staged, logs, status=status))

    def relative(self, run: RunDirectory) -> str:
        """`YYYY-MM/run_id=…` of a run."""
        return "/".join(str(run).split("/")[-2:])


@pytest.fixture(params=["folder", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        folder = tmp_path / "runs"

        def write(file: str, content: bytes) -> None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)

        yield Place(
            LocalRuns(folder),
            write,
            lambda: sorted(
                path.relative_to(folder).as_posix() for path in folder.glob("[0-9.]*/*/**/*") if path.is_file()
            ),
        )
        return
    request.getfixturevalue("credentials")
    store: Store = request.getfixturevalue("object_store")
    bucket = store.make_bucket(f"b{uuid.uuid4().hex}")
    runs = object_runs(store.endpoint, f"s3://{bucket}/lab", tmp_path / "copies")
    yield Place(
        runs,
        lambda file, content: store.write(bucket, f"lab/{file}", content),
        lambda: [key.removeprefix("lab/") for key in store.keys(bucket)],
    )


def seen(runs: RunStore, month: str = "2024-01") -> list[str]:
    return [manifest.run_id for _, manifest in runs.completed(month)]


def test_a_run_is_seen_whole_or_not_at_all(place: Place) -> None:
    assert seen(place.runs) == []
    with place.runs.begin("2024-01") as staged:
        staged.write("alerts", artifact_rows("alerts", 2))
        assert seen(place.runs) == []
    assert seen(place.runs) == []
    run = place.commit()
    manifest = read_manifest(run)
    assert seen(place.runs) == [manifest.run_id] and run.name == f"run_id={manifest.run_id}"
    assert check_run(run).run_id == manifest.run_id
    assert read_artifact(run, manifest, "paths", ["p0"])["p0"].to_pylist() == [1.5, 2.5]
    assert inspect_run(run, ["paths"]).rows == {"paths": 2}
    assert seen(place.runs, "2024-02") == []


def test_what_is_printed_of_a_run_finds_it_again(place: Place) -> None:
    run = place.commit()
    run_id = read_manifest(run).run_id
    for again in (place.runs.at(str(run)), place.runs.find(run_id), place.runs.open(place.relative(run))):
        assert str(again) == str(run) and read_manifest(again).run_id == run_id
    for nobody in ("00000000-0000-4000-8000-000000000000", "../../etc", ""):
        with pytest.raises(InputError, match="not in"):
            place.runs.find(nobody)


def test_a_failed_run_is_kept_and_never_counted(place: Place) -> None:
    run = place.commit(status="failed")
    assert seen(place.runs) == []
    assert read_manifest(run).status == "failed"
    assert not any(name.endswith("_SUCCESS") for name in place.names())
    listing = place.runs.listing()
    assert listing.examine("2024-01", run.name).manifest.status == "failed"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("truth/paths.parquet", b"PAR1", "checksum differs|bytes, run.json says"),
        ("logs/stdout.txt", b"What it said\n", "checksum differs"),
        ("run.json", b"{}", "manifest version is missing"),
        ("_SUCCESS", b"0" * 64 + b"\n", "vouches for"),
        ("truth/more.parquet", b"", "not part of the run"),
    ],
)
def test_what_a_hand_changed_is_found(place: Place, file: str, content: bytes, sentence: str) -> None:
    run_dir = place.relative(place.commit())
    place.write(f"{run_dir}/{file}", content)
    with place.runs.fresh(run_dir) as folder, pytest.raises(IntegrityError, match=sentence):
        check_run(folder)


def test_a_listing_tells_changes_and_nothing_else(place: Place) -> None:
    place.commit()
    before = place.runs.listing()
    assert place.runs.listing().months == before.months
    run = place.commit("2024-02")
    after = place.runs.listing()
    assert after.months.keys() == {"2024-01", "2024-02"} and after.months["2024-01"] == before.months["2024-01"]
    assert after.names("2024-02") == [run.name]
    columns = after.examine("2024-02", run.name).columns
    assert columns == examine_run(run).columns and set(columns) == {"alerts", "paths", "errors"}


def test_a_commit_that_did_not_finish_is_called_so(place: Place) -> None:
    run_dir = "2024-01/run_id=00000000-0000-4000-8000-000000000001"
    whole = place.relative(place.commit())
    with place.runs.fresh(whole) as folder:
        place.write(f"{run_dir}/inputs/alerts.parquet", (folder / "inputs/alerts.parquet").read_bytes())
    with pytest.raises(IntegrityError):
        place.runs.listing().examine(*run_dir.split("/"))
    assert len(seen(place.runs)) == 1


def test_files_are_told_with_their_sizes_and_digests(place: Place) -> None:
    run = place.commit()
    run_dir, entry = place.relative(run), read_manifest(run).artifacts["paths"]
    file = f"{run_dir}/{entry.path}"
    sizes = place.runs.sizes([file, f"{run_dir}/gone.parquet"])
    assert sizes[file] == entry.bytes and "no such" in str(sizes[f"{run_dir}/gone.parquet"])
    assert place.runs.digest(file) == entry.sha256
    assert place.runs.written_s(run_dir, 0.0) > 1_700_000_000
    assert place.runs.written_s("2024-01/run_id=nobody", 7.0) == 7.0


def test_runs_are_set_aside_then_removed(place: Place) -> None:
    kept, gone = place.relative(place.commit()), place.commit()
    run_id = read_manifest(gone).run_id
    assert place.runs.to_trash([place.relative(gone), "2024-01/run_id=nobody"]) == [place.relative(gone)]
    assert [f"2024-01/run_id={one}" for one in seen(place.runs)] == [kept]
    assert place.runs.trashed(run_id) and not place.runs.trashed(kept[-36:])
    assert any(name == f".trash/{place.relative(gone)}/_SUCCESS" for name in place.names())
    assert place.runs.empty_trash(0) == []
    assert place.runs.empty_trash(FUTURE_MS) == [place.relative(gone)]
    assert not any(name.startswith(".trash") for name in place.names())
    assert len(seen(place.runs)) == 1


def test_names_tags_and_notes_are_kept_beside_the_runs(place: Place) -> None:
    a, b = (read_manifest(place.commit()).run_id for _ in "ab")
    journal = place.runs.journal
    before = journal.signature()
    name_run(journal, a, "best")
    assert journal.signature() != before
    tag_run(journal, a, ["x", "y"])
    tag_run(journal, a, [], ["y"])
    note_run(journal, a, "first")
    note_run(journal, a, "seçond\nline")
    assert read_notes(journal) == {a: RunNotes("best", "seçond\nline", ("x",))}
    with pytest.raises(InputError, match=f"run {a} has it"):
        name_run(journal, b, "best")
    name_run(journal, b, "best", move=True)
    assert read_notes(place.runs.journal)[b] == RunNotes("best")


def test_a_catalog_registers_and_answers(place: Place, tmp_path: Path) -> None:
    runs = [place.commit(), place.commit("2024-02"), place.commit("2024-02", status="failed")]
    catalog = Catalog(tmp_path / "catalog.duckdb", place.runs)
    report = sync(catalog)
    assert (report.runs, report.registered, report.quarantined) == (3, 3, 0)
    assert {row["run_dir"] for row in list_runs(catalog)} == {place.relative(run) for run in runs}
    with answering(catalog, "SELECT sum(p0) AS p, count(DISTINCT run_id) AS n FROM paths") as answer:
        assert [batch.to_pylist() for batch in answer.batches] == [[{"p": 8.0, "n": 2}]]
    run_id = read_manifest(runs[0]).run_id
    path = artifact_path(catalog, run_id, "paths")
    assert path.is_file() and path.stat().st_size == read_manifest(runs[0]).artifacts["paths"].bytes
    before = list_runs(catalog)
    assert sync(catalog, rebuild=True).runs == 3 and list_runs(catalog) == before


def test_a_sync_sees_what_is_new_gone_or_broken(place: Place, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog.duckdb", place.runs)
    first = place.relative(place.commit())
    assert sync(catalog).registered == 1
    second = place.commit()
    assert unregistered_runs(catalog) == 1
    assert sync(catalog).registered == 1
    place.runs.to_trash([first])
    assert due_months(catalog) == ["2024-01"]
    assert (sync(catalog).removed, [row["run_dir"] for row in list_runs(catalog)]) == (1, [place.relative(second)])
    place.write("2024-01/run_id=00000000-0000-4000-8000-000000000001/truth/paths.parquet", b"half")
    report = sync(catalog)
    assert (report.runs, report.quarantined) == (1, 1)
    (row,) = quarantined(catalog).to_pylist()
    assert row["path"] == "2024-01/run_id=00000000-0000-4000-8000-000000000001"
    assert str(place.runs.folder) not in row["reason"] and "s3://" not in row["reason"]


def test_a_success_that_comes_late_is_seen(place: Place, tmp_path: Path) -> None:
    whole = place.relative(place.commit())
    with place.runs.fresh(whole) as folder:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    place.runs.to_trash([whole])
    success = files.pop("_SUCCESS")
    for inside, content in files.items():
        place.write(f"{whole}/{inside}", content)
    catalog = Catalog(tmp_path / "catalog.duckdb", place.runs)
    with pytest.raises(IncompleteRunError):
        place.runs.listing().examine(*whole.split("/"))
    assert sync(catalog).incomplete == 1
    place.write(f"{whole}/_SUCCESS", success)
    report = sync(catalog)
    assert (report.registered, report.quarantined) == (1, 0)


def test_only_an_object_store_has_copies(place: Place) -> None:
    run = place.commit()
    assert isinstance(run, Path) == (not isinstance(place.runs, ObjectRuns))
    assert str(run).startswith(place.runs.place)
