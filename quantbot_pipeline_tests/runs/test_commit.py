"""The commit protocol: a run is visible all at once or not at all, and says truly what it holds."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.runs.commit import STAGING, StagedRun, sweep_staging
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.runs.verify import check_run, read_artifact
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run, make_manifest


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_run_is_invisible_until_it_is_whole(tmp_path: Path) -> None:
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    with StagedRun(runs, "2024-01") as staged:
        staged.write("alerts", artifact_rows("alerts", 2))
        assert sync(Catalog(catalog, LocalRuns(runs))).runs == 0 and list(runs.glob("2024-*")) == []
        assert files(runs) == [f".staging/{staged.run_id}.lock", f".staging/{staged.run_id}/inputs/alerts.parquet"]
        staged.write("errors", artifact_rows("errors", 0))
        logs = staged.write_logs("out", "err")
        final = staged.commit(make_manifest(staged, logs))
        assert final == runs / "2024-01" / f"run_id={staged.run_id}"
    assert files(final) == [
        "_SUCCESS", "errors/errors.parquet", "inputs/alerts.parquet", "logs/stderr.txt", "logs/stdout.txt", "run.json",
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert list((runs / STAGING).iterdir()) == []
    assert sync(Catalog(catalog, LocalRuns(runs))).runs == 1


def test_success_comes_last_and_vouches_for_the_manifest(tmp_path: Path) -> None:
    run_dir = commit_run(tmp_path / "runs")
    content = (run_dir / "run.json").read_bytes()
    assert (run_dir / "_SUCCESS").read_text() == hashlib.sha256(content).hexdigest() + "\n"
    newest = max(run_dir.rglob("*"), key=lambda p: p.stat().st_mtime_ns if p.is_file() else 0)
    assert newest.name == "_SUCCESS"
    manifest = json.loads(content)
    for entry in manifest["artifacts"].values():
        raw = (run_dir / entry["path"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert pq.read_metadata(run_dir / entry["path"]).num_rows == entry["rows"]
    for name, path in manifest["logs"].items():
        assert hashlib.sha256((run_dir / path).read_bytes()).hexdigest() == manifest["logs_sha256"][name]
    assert check_run(run_dir).model_dump() == manifest


def test_a_failed_run_is_committed_without_success(tmp_path: Path) -> None:
    errors = artifact_rows("errors", 1, message=["disk on fire"])
    run_dir = commit_run(tmp_path / "runs", tables={"errors": errors}, status="failed", error="disk on fire")
    assert not (run_dir / "_SUCCESS").exists()
    manifest = check_run(run_dir)
    assert (manifest.status, manifest.error) == ("failed", "disk on fire")
    assert read_artifact(run_dir, manifest, "errors")["message"].to_pylist() == ["disk on fire"]


def test_artifacts_are_parquet_with_zstd_and_page_checksums(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = artifact_rows("paths", 500, p0=rng.uniform(1, 2, 500), t_2x_ms=[None, 5] * 250)
    run_dir = commit_run(tmp_path / "runs", tables={"paths": paths, "alerts": artifact_rows("alerts", 0)})
    path = run_dir / "truth/paths.parquet"
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        assert file.schema_arrow.equals(ARTIFACTS["paths"][1])
        assert [field.nullable for field in file.schema_arrow] == [f.nullable for f in ARTIFACTS["paths"][1]]
        table = file.read()
        row_group = file.metadata.row_group(0)
        assert {row_group.column(i).compression for i in range(row_group.num_columns)} == {"ZSTD"}
        prices = row_group.column(file.schema_arrow.names.index("p0"))
    assert set(table["run_id"].to_pylist()) == {run_dir.name.removeprefix("run_id=")}
    assert table.drop_columns("run_id").to_pylist() == paths.to_pylist()
    # The last byte of the prices' pages, flipped: the pages themselves know.
    damaged = bytearray(path.read_bytes())
    start = prices.dictionary_page_offset or prices.data_page_offset
    damaged[start + prices.total_compressed_size - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"), pq.ParquetFile(path, page_checksum_verification=True) as file:
        file.read()


def test_a_table_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with StagedRun(tmp_path, "2024-01") as staged:
        with pytest.raises(ValueError, match=r"alerts\.mint must not be null \(1 rows are\)"):
            staged.write("alerts", artifact_rows("alerts", 2, mint=["m", None]))
        with pytest.raises(KeyError):
            staged.write("alerts", artifact_rows("alerts", 2).drop_columns("mint"))
        with pytest.raises(pa.ArrowInvalid):
            staged.write("alerts", artifact_rows("alerts", 1).set_column(4, "alert_ts_ms", pa.array([0.5])))
        assert staged.artifacts == {}
    assert files(tmp_path) == []


def test_a_number_that_json_has_no_word_for_never_reaches_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        commit_run(tmp_path, parameters={"x": float("nan")})
    assert files(tmp_path) == [] and list(tmp_path.glob("2024-01/*")) == []


def test_what_interrupts_a_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StagedRun(tmp_path, "2024-01") as staged:
        staged.write("alerts", artifact_rows("alerts", 1))
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_the_content_hash_is_of_values_alone() -> None:
    table = artifact_rows("paths", 6, dd_to_2x_bps=[None, 1.0, None, 2.0, 3.0, float("nan")])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3)])
    assert content_sha256(chunked) == content_sha256(table)
    assert content_sha256(table.replace_schema_metadata({"made": "elsewhere"})) == content_sha256(table)
    others = [table.slice(1), table.take([1, 0, 2, 3, 4, 5]), table.rename_columns(["x", *table.column_names[1:]])]
    others.append(table.set_column(6, "p0", pa.array([0.5] * 5 + [0.5 + 2**-53])))
    assert len({content_sha256(t) for t in (table, *others)}) == 5


@pytest.mark.parametrize(("first", "last"), [(0, 5), (3, 8), (3, 64), (0, 64)])
def test_the_content_hash_of_a_part_does_not_know_the_rest(first: int, last: int) -> None:
    """A stream fills its last bytes up with whatever follows in memory; the hash must not."""
    rows = max(8, last)
    hits = [i % 3 == 0 or i > 4 for i in range(rows)]
    whole = artifact_rows("paths", rows, call_id=[f"call {i}" for i in range(rows)], hit_2x=hits)
    part = whole.slice(first, last - first)
    alone = pa.Table.from_pylist(part.to_pylist(), schema=part.schema)
    assert content_sha256(part) == content_sha256(alone)


def test_a_run_whose_lock_was_removed_is_not_committed(tmp_path: Path) -> None:
    # Whoever takes the lock anew may sweep the staging directory while it is renamed.
    with StagedRun(tmp_path, "2024-01") as staged:
        staged.write("alerts", artifact_rows("alerts", 1))
        manifest = make_manifest(staged, staged.write_logs("", ""))
        staged.path.with_suffix(".lock").unlink()
        with pytest.raises(StoreError, match=r"\.lock: removed while it was held"):
            staged.commit(manifest)
    assert files(tmp_path) == []


def random_pieces(table: pa.Table, rng: np.random.Generator) -> list[pa.Table]:
    """The table cut at random places; some pieces are empty."""
    cuts = np.sort(rng.integers(0, table.num_rows + 1, 9)).tolist()
    return [table.slice(a, b - a) for a, b in itertools.pairwise([0, *cuts, table.num_rows])]


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 128, 500])
def test_the_pieces_in_which_rows_come_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("quantbot_pipeline.runs.content.SLICE_ROWS", 64)
    rng = np.random.default_rng(rows)
    captures = [None if x < 0.5 else x for x in rng.random(rows)]
    table = artifact_rows("trades", rows, tail_capture=captures, stop_out=(rng.random(rows) < 0.5).tolist())
    made = []
    for number, pieces in enumerate([[table], random_pieces(table, rng), random_pieces(table, rng)]):
        run_id = "00000000-0000-4000-8000-000000000000"
        with StagedRun(tmp_path / str(number), "2024-01", run_id) as staged:
            with staged.writing("trades") as artifact:
                for piece in pieces:
                    artifact.add(piece)
            target = staged.path / ARTIFACTS["trades"][0]
            made.append((staged.artifacts["trades"], target.read_bytes()))
            metadata = pq.read_metadata(target)
            assert pq.ParquetFile(target).read().select(table.column_names).cast(table.schema).equals(table)
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert groups == ([64] * ((rows - 1) // 64) + [(rows - 1) % 64 + 1] if rows else [0])
        assert content_sha256(iter(pieces)) == made[-1][0].content_sha256
    assert made[0] == made[1] == made[2] and made[0][0].rows == rows
    monkeypatch.undo()
    assert (content_sha256(table) == made[0][0].content_sha256) == (rows <= 64), "one slice is the whole table"


def test_what_fails_between_two_pieces_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    with StagedRun(tmp_path, "2024-01") as staged:
        with pytest.raises(ZeroDivisionError), staged.writing("trades") as artifact:
            artifact.add(artifact_rows("trades", 3))
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), staged.writing("alerts"):
            raise ZeroDivisionError
        assert staged.artifacts == {} and list(staged.path.iterdir()) == []
        staged.write("summary", artifact_rows("summary", 1))
        with pytest.raises(ValueError, match="must not be null"), staged.writing("frontier") as artifact:
            artifact.add(artifact_rows("frontier", 1, caller_name=[None]))
        assert [p.name for p in staged.path.rglob("*")] == ["results", "summary.parquet"]


STUCK = """
import os, sys
from pathlib import Path
from quantbot_pipeline.runs.commit import StagedRun
staged = StagedRun(Path(sys.argv[1]), "2024-01")
(staged.path / "inputs").mkdir()
print(staged.run_id, flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_staging_is_swept_when_old_and_unlocked(tmp_path: Path) -> None:
    staging = tmp_path / STAGING
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        alive = process.stdout.readline().strip()
        dead, young = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
        lock_alone = "00000000-0000-4000-8000-000000000003"
        for name in (dead, young):
            (staging / name / "inputs").mkdir(parents=True)
            (staging / name / "inputs" / "alerts.parquet").touch()
        for name in (dead, lock_alone):
            (staging / f"{name}.lock").touch()
        (staging / "mine").mkdir()  # not one of ours
        an_hour_ago = time.time() - 3600
        for path in [*staging.glob(f"{dead}*"), *staging.glob(f"{lock_alone}*"), staging / alive, staging / "mine"]:
            os.utime(path, (an_hour_ago, an_hour_ago))
        assert sweep_staging(tmp_path, 1800) == 1
        assert sorted(p.name for p in staging.iterdir()) == sorted([alive, f"{alive}.lock", "mine", young])
    finally:
        process.communicate()
    assert sweep_staging(tmp_path, 7200) == 0, "not old enough"
    assert sweep_staging(tmp_path, 0) == 2, "the lock went with its process"
    assert [p.name for p in staging.iterdir()] == ["mine"]
    assert sweep_staging(tmp_path / "nowhere", 0) == 0
