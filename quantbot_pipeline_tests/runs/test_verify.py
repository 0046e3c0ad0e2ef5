"""Verification: no byte of a run can change, come or go unnoticed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.manifest import read_manifest
from quantbot_pipeline.runs.verify import IncompleteRunError, check_run, read_artifact
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commit_run(tmp_path_factory.mktemp("verify") / "runs")


@pytest.fixture
def run_dir(original: Path, tmp_path: Path) -> Path:
    """A private copy of the run, to be harmed."""
    shutil.copytree(original.parents[1], tmp_path / "runs")
    return tmp_path / "runs" / original.parent.name / original.name


def vouch(run_dir: Path) -> None:
    """Make `_SUCCESS` fit the manifest that is there: what a forger, or a faulty writer, would do."""
    digest = hashlib.sha256((run_dir / "run.json").read_bytes()).hexdigest()
    (run_dir / "_SUCCESS").write_text(digest + "\n")


def test_a_run_as_committed_is_in_order(run_dir: Path) -> None:
    assert check_run(run_dir) == check_run(run_dir, checksums=False) == read_manifest(run_dir)


def test_every_flipped_bit_is_noticed(run_dir: Path) -> None:
    flips = 0
    for path in sorted(p for p in run_dir.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        step = 1 if len(whole) < 100 else len(whole) // 60
        for offset in {*range(0, len(whole), step), len(whole) - 1} if whole else ():
            bit = 1 << (offset // step % 8)
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ bit]) + whole[offset + 1 :])
            with pytest.raises(IntegrityError):
                check_run(run_dir)
            flips += 1
        for other in (whole[:-1] if whole else b"x", whole + b"\n", whole + b" "):
            path.write_bytes(other)
            with pytest.raises(IntegrityError):
                check_run(run_dir)
        path.write_bytes(whole)
    assert flips > 300
    check_run(run_dir)


def test_without_checksums_sizes_and_names_still_count(run_dir: Path) -> None:
    path = run_dir / "truth/paths.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"X")
    check_run(run_dir, checksums=False)
    path.write_bytes(whole + b"X")
    with pytest.raises(IntegrityError, match=r"paths\.parquet: \d+ bytes, run\.json says \d+"):
        check_run(run_dir, checksums=False)


def test_reading_an_artifact_verifies_it_first(run_dir: Path) -> None:
    manifest = check_run(run_dir)
    assert read_artifact(run_dir, manifest, "paths")["mint"].to_pylist() == ["mint-0", "mint-1"]
    path = run_dir / "truth/paths.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(IntegrityError, match=r"paths\.parquet: checksum differs"):
        read_artifact(run_dir, manifest, "paths")
    path.unlink()
    with pytest.raises(IntegrityError, match=r"paths\.parquet: No such file"):
        read_artifact(run_dir, manifest, "paths")
    with pytest.raises(IntegrityError, match="the run has no artifact trades"):
        read_artifact(run_dir, manifest, "trades")


def swap(run_dir: Path, one: str, other: str) -> None:
    (run_dir / one).rename(run_dir / "x")
    (run_dir / other).rename(run_dir / one)
    (run_dir / "x").rename(run_dir / other)


def link(path: Path, *, to_folder: bool = False) -> None:
    """Replace a file or folder by a link to its own content elsewhere."""
    target = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target, target_is_directory=to_folder)


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "artifact gone": (lambda d: (d / "truth/paths.parquet").unlink(), "paths.parquet: missing"),
    "log gone": (lambda d: (d / "logs/stderr.txt").unlink(), "stderr.txt: missing"),
    "manifest gone": (lambda d: (d / "run.json").unlink(), "run.json: No such file"),
    "extra file": (lambda d: (d / "truth/.extra").touch(), "extra: not part of the run"),
    "extra link to a folder": (lambda d: (d / "extra").symlink_to("/"), "extra: a symbolic link"),
    "extra pipe": (lambda d: os.mkfifo(d / "extra"), "extra: not part of the run"),
    "manifest is a pipe": (lambda d: ((d / "run.json").unlink(), os.mkfifo(d / "run.json")), "run.json: not a regular"),
    "artifact is a pipe": (
        lambda d: ((d / "truth/paths.parquet").unlink(), os.mkfifo(d / "truth/paths.parquet")), "missing or not a regular",
    ),
    "artifact is a folder": (
        lambda d: ((d / "truth/paths.parquet").unlink(), (d / "truth/paths.parquet").mkdir()), "missing or not a regular",
    ),
    "success is a folder": (lambda d: ((d / "_SUCCESS").unlink(), (d / "_SUCCESS").mkdir()), "not a regular file"),
    "swapped": (lambda d: swap(d, "truth/paths.parquet", "inputs/alerts.parquet"), "checksum differs"),
    "linked artifact": (lambda d: link(d / "truth/paths.parquet"), "a symbolic link"),
    "linked folder": (lambda d: link(d / "truth", to_folder=True), "a symbolic link"),
    "linked manifest": (lambda d: link(d / "run.json"), "a symbolic link"),
    "linked success": (lambda d: link(d / "_SUCCESS"), "a symbolic link"),
    "other manifest": (
        lambda d: (d / "run.json").write_text((d / "run.json").read_text().replace("12.5", "12.4")), "not the one that _SUCCESS",
    ),
}  # fmt: skip  # a table: what belongs together stands on one line


@pytest.mark.parametrize(("harm", "message"), HARM.values(), ids=HARM)
def test_what_comes_goes_or_changes_place_is_noticed(
    run_dir: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(run_dir)
    with pytest.raises(IntegrityError, match=message) as caught:
        check_run(run_dir)
    assert str(run_dir) in str(caught.value)


def test_a_run_is_believed_only_under_its_own_name(run_dir: Path) -> None:
    moved = run_dir.with_name("run_id=00000000-0000-4000-8000-000000000000")
    run_dir.rename(moved)
    with pytest.raises(IntegrityError, match=r"run\.json says run_id "):
        check_run(moved)
    other_month = run_dir.parents[1] / "2024-02" / run_dir.name
    other_month.parent.mkdir()
    moved.rename(other_month)
    with pytest.raises(IntegrityError, match=r"run\.json says month 2024-01"):
        check_run(other_month)
    run_dir.symlink_to(other_month)
    for nothing in (run_dir, run_dir / "run.json", run_dir.with_name("absent")):
        with pytest.raises(IntegrityError, match="not a run directory"):
            check_run(nothing)


def test_status_and_success_belong_together(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "_SUCCESS").unlink()
    with pytest.raises(IncompleteRunError, match="no _SUCCESS: the commit did not finish"):
        check_run(run_dir)
    failed = commit_run(tmp_path / "other", status="failed")
    assert check_run(failed).status == "failed"
    vouch(failed)
    with pytest.raises(IntegrityError, match="status failed in a run directory"):
        check_run(failed)
    for status in ("running", "pending"):
        with pytest.raises(IntegrityError, match=f"status {status} in a run directory"):
            check_run(commit_run(tmp_path / status, status=status))


def rewrite(run_dir: Path, table: pa.Table | bytes) -> None:
    """Put another paths.parquet into a run and make every checksum fit."""
    path, manifest = run_dir / "truth/paths.parquet", json.loads((run_dir / "run.json").read_bytes())
    path.write_bytes(table) if isinstance(table, bytes) else pq.write_table(table, path)
    raw = path.read_bytes()
    manifest["artifacts"]["paths"] |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (run_dir / "run.json").write_text(json.dumps(manifest))
    vouch(run_dir)


def test_a_file_with_fitting_checksums_must_still_be_the_promised_table(run_dir: Path) -> None:
    ids = pa.array([run_dir.name.removeprefix("run_id=")] * 2)
    rows = artifact_rows("paths", 2)
    rewrite(run_dir, rows.add_column(0, "run_id", ids).append_column("novelty", ids))
    check_run(run_dir)
    rewrite(run_dir, rows.add_column(0, "run_id", ids).set_column(7, "p0", pa.array(["1", "2"])))
    with pytest.raises(IntegrityError, match=r"paths\.parquet: column p0 is string, not double"):
        check_run(run_dir)
    rewrite(run_dir, rows.add_column(0, "run_id", ids).slice(1))
    with pytest.raises(IntegrityError, match=r"paths\.parquet: 1 rows, run\.json says 2"):
        check_run(run_dir)
    rewrite(run_dir, b"PAR1 not really PAR1")
    with pytest.raises(IntegrityError, match=r"paths\.parquet: not a Parquet file"):
        check_run(run_dir)


def test_a_name_no_file_system_takes_is_only_a_wrong_run(run_dir: Path) -> None:
    manifest = json.loads((run_dir / "run.json").read_bytes())
    for path in ("x" * 5000, "é" * 300, ".", ""):
        manifest["artifacts"]["novelty"] = manifest["artifacts"]["paths"] | {"path": path}
        (run_dir / "run.json").write_text(json.dumps(manifest))
        vouch(run_dir)
        with pytest.raises(IntegrityError):
            check_run(run_dir)
