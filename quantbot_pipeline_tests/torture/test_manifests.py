"""`run.json` as an attacker would write it, `_SUCCESS` and all: refused by everybody, named, and nothing outside is reached.

Single keys are tried in `artifacts/test_manifest.py`; here whole run directories meet verification, sync and the command line.
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import artifact_rows, commit_run
from quantbot_pipeline_tests.support.content import ask
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.torture.conftest import Tally

MEMORY_MB = 280  # more than before the attack; a manifest is read up to 4 MiB
MEMORY_MB_PER_RUN = 40  # of text on its way into the catalog, for a manifest of 4 MiB
Attack = Callable[[Path], object]


def text_of(run_dir: Path) -> str:
    return (run_dir / "run.json").read_text(encoding="utf-8")


def write(run_dir: Path, content: bytes | str) -> None:
    """Another manifest, with a `_SUCCESS` that vouches for it."""
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (run_dir / "run.json").write_bytes(raw)
    (run_dir / "_SUCCESS").write_bytes(hashlib.sha256(raw).hexdigest().encode() + b"\n")


def change(old: str, new: str) -> Attack:
    def attack(run_dir: Path) -> None:
        assert old in text_of(run_dir)
        write(run_dir, text_of(run_dir).replace(old, new, 1))

    return attack


def put(*keys: str, value: Any) -> Attack:
    def attack(run_dir: Path) -> None:
        data = json.loads(text_of(run_dir))
        _put(data, keys, value)
        write(run_dir, json.dumps(data))

    return attack


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        data = data[key]
    data[keys[-1]] = value


def cut_to(share: float) -> Attack:
    def attack(run_dir: Path) -> None:
        write(run_dir, text_of(run_dir)[: int(len(text_of(run_dir)) * share)])

    return attack


def replaced_by_link(name: str) -> Attack:
    """A file or folder of the run (or the run itself: "") that lies outside of the base."""

    def attack(run_dir: Path) -> None:
        outside = run_dir.parents[2] / f"outside-{run_dir.name}-{Path(name).name}"
        (run_dir / name).rename(outside)
        (run_dir / name).symlink_to(outside, target_is_directory=outside.is_dir())

    return attack


def claims_a_file_outside(path: str) -> Attack:
    """An artifact of a kind we do not know, with the right size and checksum of a file that lies outside."""

    def attack(run_dir: Path) -> None:
        secret = run_dir.parents[2] / "secret.parquet"
        raw = secret.read_bytes()
        entry = {"rows": 2, "path": path.format(secret=secret), "bytes": len(raw)}
        put("artifacts", "loot", value=entry | {"sha256": hashlib.sha256(raw).hexdigest()})(run_dir)

    return attack


DEEP = 100_000
ATTACKS: dict[str, Attack] = {
    **{f"cut to {share:.0%}": cut_to(share) for share in (0, 0.01, 0.3, 0.6, 0.9, 0.99)},
    "a key twice": change('"run_type"', '"run_id": "x", "run_type"'),
    "an inner key twice": change('"rows": 2', '"rows": 2, "rows": 2'),
    "50 MB of blanks": lambda d: write(d, text_of(d) + " " * 50_000_000),
    "50 MB in a text": change('"latency_ms": 60000', '"latency_ms": "' + "x" * 50_000_000 + '"'),
    "50 MB of _SUCCESS": lambda d: (d / "_SUCCESS").write_bytes(b"0" * 50_000_000),
    "endless manifest": lambda d: ((d / "run.json").unlink(), (d / "run.json").symlink_to("/dev/zero")),
    "pipe for a manifest": lambda d: ((d / "run.json").unlink(), os.mkfifo(d / "run.json")),
    "deep arrays": change("60000", "[" * DEEP + "]" * DEEP),
    "deep objects": change("60000", '{"a":' * DEEP + "1" + "}" * DEEP),
    "rather deep": change("60000", "[" * 900 + "]" * 900),
    "not a number": change("12.5", "NaN"),
    "infinite": change("12.5", "-Infinity"),
    "too large for a number": change("12.5", "1e999"),
    "an endless number": change("60000", "9" * 100_000),
    "not UTF-8": lambda d: write(d, text_of(d).replace("c0ffee", "\xff").encode("latin-1")),
    "UTF-16": lambda d: write(d, text_of(d).encode("utf-16")),
    "half a character": change("c0ffee", "\\ud800"),
    "newer version": put("schema_version", "manifest", value="2.0.0"),
    "no version": put("schema_version", "manifest", value=None),
    "version of another kind": put("schema_version", value="1.0.0"),
    "another run's id": put("run_id", value="00000000-0000-4000-8000-000000000000"),
    "an id with a path": put("run_id", value="../../x"),
    "another month": put("month", value="2023-12"),
    "a month with a path": put("month", value="../2024-01"),
    "running for ever": put("status", value="running"),
    "failed, but a success": put("status", value="failed"),
    "an absolute path": claims_a_file_outside("{secret}"),
    "a path upwards": claims_a_file_outside("../../../secret.parquet"),
    "a path in and out": claims_a_file_outside("truth/../../../../secret.parquet"),
    "a log outside": put("logs", "stdout", value="/etc/hostname"),
    "a known artifact elsewhere": put("artifacts", "paths", "path", value="inputs/alerts.parquet"),
    "a path of dots": claims_a_file_outside("."),
    "a device": claims_a_file_outside("/dev/zero"),
    "linked run": replaced_by_link(""),
    "linked folder": replaced_by_link("truth"),
    "linked artifact": replaced_by_link("truth/paths.parquet"),
    "linked manifest": replaced_by_link("run.json"),
    "a link more": lambda d: (d / "loot").symlink_to("/etc"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose base holds two sound runs and one run per attack."""
    home = tmp_path_factory.mktemp("manifests") / "home"
    runs = home / "runs"
    runs.mkdir(parents=True)
    tables = {"paths": artifact_rows("paths", 2, mint=["secret"] * 2)}
    shutil.copyfile(commit_run(home / "elsewhere", tables=tables) / "truth/paths.parquet", home / "secret.parquet")
    for _ in range(2):
        commit_run(runs)
    for name, attack in ATTACKS.items():
        run_dir = commit_run(runs)
        attack(run_dir)
        (run_dir.parents[2] / "names").mkdir(exist_ok=True)
        (run_dir.parents[2] / "names" / run_dir.name).write_text(name)
    (runs / "2024-02").symlink_to(home / "elsewhere" / "2024-01", target_is_directory=True)
    return home


def harmed(home: Path) -> Iterator[tuple[Path, str]]:
    for note in (home / "names").iterdir():
        yield home / "runs/2024-01" / note.name, note.read_text()


def test_every_attack_is_refused_and_named(attacked: Path, tmp_path: Path, tally: Tally, quantbot: Quantbot) -> None:
    runs, catalog = attacked / "runs", tmp_path / "c.duckdb"
    for run_dir, name in harmed(attacked):
        with pytest.raises(IntegrityError) as refused:
            check_run(run_dir)
        assert run_dir.name in str(refused.value) and len(str(refused.value)) < 2_000, name
    believed = {folder for folder, _ in LocalRuns(attacked / "runs").completed("2024-01")}
    assert len(believed) == 2
    sync(Catalog(catalog, LocalRuns(runs)))
    assert {runs / d for (d,) in ask(catalog, "SELECT run_dir FROM backtest_runs_catalog")} == believed
    aside = {runs / path for (path,) in ask(catalog, "SELECT path FROM quarantine")}
    linked = {folder for folder in aside if folder.parent.name == "2024-02"}  # its manifest says another month
    assert len(linked) == 1
    assert aside - linked == {run_dir for run_dir, _ in harmed(attacked)}
    assert ask(catalog, "SELECT count(*) FROM paths WHERE mint = 'secret'") == [(0,)]
    done = quantbot("backtest", "verify", runs, "--format", "json")
    assert (done.status, "Traceback" in done.err) == (1, False)
    assert f"{len(ATTACKS) + 1} of " in done.err  # and the run behind the linked month
    tally("hostile run.json: refused, named, nothing outside reached", tried=len(ATTACKS), detected=len(aside - linked))


MEASURED = """
import sys
from pathlib import Path
from quantbot_pipeline.catalog.catalog import Catalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline_tests.support.builders import commit_run

def peak_mb():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

home = Path(sys.argv[1])
commit_run(home / "warm")
sync(Catalog(home / "warm.duckdb", LocalRuns(home / "warm")))
before = peak_mb()
sync(Catalog(home / "c.duckdb", LocalRuns(Path(sys.argv[2]))))
print(peak_mb() - before)
"""


def memory_mb(runs: Path, folder: Path) -> float:
    """By how much the peak of a process grows when it syncs these runs."""
    done = subprocess.run([sys.executable, "-c", MEASURED, folder, runs], check=True, capture_output=True, text=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_attack_costs_bounded_memory(attacked: Path, tmp_path: Path) -> None:
    assert memory_mb(attacked / "runs", tmp_path) < MEMORY_MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.torture
def test_manifests_of_many_small_objects_cost_bounded_memory(tmp_path: Path) -> None:
    """The worst that is still valid: 4 MiB of empty lists, which take thirty times their size in memory."""
    runs = 12
    for _ in range(runs):
        change("60000", "[" + "[]," * 1_390_000 + "[]]")(commit_run(tmp_path / "runs"))
    assert memory_mb(tmp_path / "runs", tmp_path) < MEMORY_MB + runs * MEMORY_MB_PER_RUN


ODD: tuple[Any, ...] = (None, True, -1, 0, 1.5, 10**30, "", "x", "\ud800", [], [[]], {}, {"a": 1}, "../../x", "\x00")


def leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of a manifest."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*keys, key)
            yield from leaves(inner, (*keys, key))


@pytest.mark.parametrize("every", sizes(12, 1))
def test_every_key_of_every_wrong_type(tmp_path: Path, every: int, tally: Tally) -> None:
    """Each value is refused or harmless: cataloged or quarantined, never a crash, never a neighbour's loss."""
    runs, catalog = tmp_path / "runs", tmp_path / "c.duckdb"
    pattern = commit_run(tmp_path / "pattern", run_id="00000000-0000-4000-8000-000000000000")
    data = json.loads(text_of(pattern))
    cases = [(keys, value) for keys in leaves(data) for value in ODD][::every]
    refused = 0
    for i, (keys, value) in enumerate(cases):
        run_id = f"{i:08x}-0000-4000-8000-000000000001"
        run_dir = runs / "2024-01" / f"run_id={run_id}"
        shutil.copytree(pattern, run_dir)
        changed = copy.deepcopy(data) | {"run_id": run_id}
        _put(changed, keys, value)
        write(run_dir, json.dumps(changed))
        try:
            check_run(run_dir)
        except IntegrityError:
            refused += 1
    good = commit_run(runs)
    report = sync(Catalog(catalog, LocalRuns(runs)))
    assert (report.quarantined, report.runs) == (refused, len(cases) - refused + 1)
    assert ask(catalog, f"SELECT count(*) FROM backtest_runs_catalog WHERE run_dir = '2024-01/{good.name}'") == [(1,)]
    assert refused > len(cases) / 2
    for view in ("latest_runs", "paths", "alerts", "errors"):
        ask(catalog, f"FROM {view}")
    tally("run.json: every key of every wrong type", tried=len(cases), detected=refused)
