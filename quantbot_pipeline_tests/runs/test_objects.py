"""Runs in an object store: how many requests they take, what a dishonest server is told, what copies cost, and who hears of secrets."""

import hashlib
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from quantbot_pipeline.bucket import Absent, Bucket
from quantbot_pipeline.catalog.catalog import Catalog, list_runs
from quantbot_pipeline.catalog.room import answering
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, IntegrityError, QuantbotError, StoreError
from quantbot_pipeline.runs.manifest import RunDirectory, read_manifest
from quantbot_pipeline.runs.objects import ObjectRuns
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import artifact_rows, make_manifest
from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Proxy, Store, leaks, object_runs, options

pytestmark = pytest.mark.usefixtures("credentials")
ROWS = 25_000  # of random prices: about 0.8 MB a file
FILES = ("alerts", "paths", "trades", "summary", "frontier", "errors")


class Machine:
    """One machine with copies of its own, in front of a shared bucket, behind a proxy that counts."""

    def __init__(self, proxy: Proxy, url: str, folder: Path, **more: float) -> None:
        self.proxy, self.runs = proxy, object_runs(proxy.endpoint, url, folder / "copies", **more)
        self.catalog = Catalog(folder / "catalog.duckdb", self.runs)
        self.catalog.path.parent.mkdir(parents=True, exist_ok=True)

    def commit(self, month: str = "2024-01", rows: int = 2) -> RunDirectory:
        """Commit a run of eight files: six artifacts and two logs."""
        with self.runs.begin(month) as staged:
            for name in FILES:
                staged.write(name, artifact_rows(name, rows if name != "errors" else 0))
            logs = staged.write_logs("what it said\n", "")
            self.proxy.begin()
            return staged.commit(make_manifest(staged, logs))

    def counts(self) -> Counter[str]:
        """Requests since the proxy began, by method; a listing is a LIST."""
        return Counter("LIST" if "list-type=2" in path else method for method, path, _ in self.proxy.log)


@pytest.fixture
def proxy(object_store: Store) -> Iterator[Proxy]:
    with Proxy(object_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(object_store: Store) -> str:
    return object_store.make_bucket(f"b{uuid.uuid4().hex}")


@pytest.fixture
def machines(proxy: Proxy, bucket: str, tmp_path: Path) -> list[Machine]:
    """Three machines that share nothing but the bucket."""
    return [Machine(proxy, f"s3://{bucket}/lab", tmp_path / f"machine-{n}") for n in range(3)]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_run_of_eight_files_takes_eleven_requests_to_commit_and_two_to_see(machines: list[Machine]) -> None:
    here, there, _ = machines
    here.commit()  # the probe of the store is once for ever
    here.commit(rows=ROWS)
    assert here.counts() == {"PUT": 10, "LIST": 1}
    sync(there.catalog)
    run = here.commit()
    there.proxy.begin()
    assert sync(there.catalog).registered == 1
    # Months, the month, the notes twice: before the journal is read and while it is.
    assert there.counts() == {"LIST": 4, "GET": 2}
    there.proxy.begin()
    assert read_artifact(there.runs.open("/".join(str(run).split("/")[-2:])), read_manifest(run), "paths").num_rows == 2
    assert there.counts() == {"GET": 1}, "one file was asked for"


def test_a_sync_with_nothing_new_lists_each_month_once(machines: list[Machine]) -> None:
    here = machines[0]
    for month in ("2024-01", "2024-02", "2024-03"):
        here.commit(month)
    assert sync(here.catalog).runs == 3
    here.proxy.begin()
    assert sync(here.catalog).published is False
    assert here.counts() == {"LIST": 3 + 2}, "the months' names and the notes are two more"


def test_a_query_fetches_what_it_reads_once(machines: list[Machine]) -> None:
    here, there, _ = machines
    here.commit()
    here.commit("2024-02")
    sync(there.catalog)
    there.proxy.begin()
    for _ in "ab":
        with answering(there.catalog, "SELECT count(*) AS n FROM paths") as answer:
            assert [batch.to_pylist() for batch in answer.batches] == [[{"n": 4}]]
    assert there.counts() == {"GET": 2}


def test_what_this_machine_committed_is_not_fetched(machines: list[Machine]) -> None:
    here = machines[0]
    here.commit()
    sync(here.catalog)
    here.proxy.begin()
    with answering(here.catalog, "SELECT count(*) FROM paths") as answer:
        assert len(list(answer.batches)) == 1
    assert here.counts() == {}


# --- copies -----------------------------------------------------------------------------------------------------------


def test_views_of_files_that_are_elsewhere_are_an_error_and_never_half_an_answer(machines: list[Machine]) -> None:
    here, there, _ = machines
    here.commit()
    sync(here.catalog)
    sync(there.catalog)
    questions = ("SELECT count(*) FROM paths", "SELECT p0 FROM paths WHERE p0 > 0", "SELECT mint FROM alerts")
    with duckdb.connect(str(here.catalog.path), read_only=True) as con:
        assert [len(con.execute(question).fetchall()) for question in questions] == [1, 2, 2]
    with duckdb.connect(str(there.catalog.path), read_only=True) as con:
        for question in questions:
            with pytest.raises(duckdb.Error, match="1 files of the runs are not on this machine"):
                con.execute(question).fetchall()


def test_copies_stay_within_their_limit(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantbot_pipeline.copied.IN_USE_S", 0.0)
    here = Machine(proxy, f"s3://{bucket}/lab", tmp_path / "here")
    runs = ["/".join(str(here.commit()).split("/")[-2:]) for _ in range(4)]
    one = sum(path.stat().st_size for path in (here.runs.folder / runs[0]).glob("*/*"))
    there = Machine(proxy, f"s3://{bucket}/lab", tmp_path / "there", copies_bytes=2 * one + 100)
    for run_dir in runs:
        there.runs.open(run_dir).whole()
    kept = [sum(path.stat().st_size for path in (there.runs.folder / run_dir).glob("*/*")) for run_dir in runs]
    assert sum(kept) <= 2 * one + 100
    assert kept[-1] > one / 2 and kept[0] == 0, "what was used longest ago is gone"
    assert read_artifact(there.runs.open(runs[0]), read_manifest(there.runs.open(runs[0])), "paths").num_rows == 2


def test_a_file_that_is_not_as_promised_is_no_copy(machines: list[Machine], object_store: Store, bucket: str) -> None:
    here, there, _ = machines
    run_dir = "/".join(str(here.commit()).split("/")[-2:])
    key = f"lab/{run_dir}/truth/paths.parquet"
    content = bytearray(object_store.read(bucket, key))
    content[100] ^= 1
    object_store.write(bucket, key, bytes(content))
    assert sync(there.catalog).runs == 1
    with pytest.raises(IntegrityError, match=r"s3://.*/truth/paths\.parquet: checksum differs from run\.json"):
        read_artifact(there.runs.open(run_dir), read_manifest(there.runs.open(run_dir)), "paths")
    assert not (there.runs.folder / run_dir / "truth").exists()
    torn = there.runs.open(run_dir) / "inputs/alerts.parquet"
    torn.write_bytes(b"torn by a crash")
    assert (there.runs.open(run_dir) / "inputs/alerts.parquet").stat().st_size > 100, "fetched again"


# --- servers and clients ----------------------------------------------------------------------------------------------


def test_an_answer_that_was_lost_is_a_success_and_other_bytes_are_an_error(proxy: Proxy, bucket: str) -> None:
    place = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    proxy.begin(lambda n, method, path: "lost" if n == 1 else None)
    place.put_new("a", b"1")
    assert [method for method, *_ in proxy.log] == ["PUT", "PUT", "GET"]
    with pytest.raises(IntegrityError, match="there already, with other bytes"):
        place.put_new("a", b"2")
    assert place.get("a") == b"1"
    with pytest.raises(Absent):
        place.get("b")


def test_a_store_that_overwrites_is_refused_before_anything_is_written(
    proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    proxy.begin(lambda n, method, path: "unconditional")
    runs = object_runs(proxy.endpoint, f"s3://{bucket}/lab", tmp_path)
    with pytest.raises(StoreError, match="overwrites what should be created"):
        runs.begin("2024-01")
    proxy.begin()
    assert runs.bucket.listing("") == []


def test_the_probe_says_how_a_swap_is_spelt(proxy: Proxy, bucket: str) -> None:
    place = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    proxy.begin()
    assert place.probe() == (True, True)
    assert place.listing("") == []
    swaps = [n for n, (method, *_) in enumerate(proxy.log, 1) if method == "PUT"][2:]
    for refused, found in ((swaps[0], (False, True)), (swaps[2], (True, False))):
        proxy.begin(lambda n, method, path, refused=refused: "412" if n == refused else None)  # type: ignore[misc]
        assert place.probe() == found


def test_a_swap_is_made_by_whoever_knows_what_is_there(proxy: Proxy, bucket: str) -> None:
    place = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    assert place.etag("a") is None
    first = place.swap("a", b"1", None)
    assert first is not None and place.read("a") == (b"1", first) and place.etag("a") == first
    assert place.swap("a", b"2", None) is None, "it is there already"
    second = place.swap("a", b"2", first)
    assert second is not None and second != first
    assert place.swap("a", b"3", first) is None and place.get("a") == b"2"
    proxy.begin(lambda n, method, path: "lost" if n == 1 else None)
    assert place.swap("a", b"4", second) is not None, "its answer was lost, and it counts"
    assert place.get("a") == b"4"
    place.delete("a")
    assert place.swap("a", b"5", second) is None and place.etag("a") is None


@pytest.mark.parametrize("fault", ["gateway", None])
def test_a_swap_is_spelt_as_the_server_wants_it_and_probed_once_on_a_machine(
    proxy: Proxy, bucket: str, tmp_path: Path, fault: str | None
) -> None:
    note = tmp_path / "copies" / "probed.json"
    proxy.begin(lambda n, method, path: fault)
    place = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    assert place.honours(note) == (fault is None, True)
    again = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    proxy.begin(lambda n, method, path: fault)
    assert again.honours(note) == (fault is None, True) and proxy.log == []
    etag = again.swap("a", b"1", None)
    assert again.swap("a", b"2", etag) is not None and again.get("a") == b"2"


def test_a_store_that_does_not_swap_is_told_so(proxy: Proxy, bucket: str) -> None:
    proxy.begin(lambda n, method, path: "unconditional" if n > 3 else None)
    place = Bucket(f"s3://{bucket}/x", options(proxy.endpoint))
    with pytest.raises(StoreError, match="the store does not swap objects"):
        place.swap("a", b"1", "0" * 32)
    proxy.begin()
    assert place.listing("") == []


@pytest.mark.parametrize(
    ("url", "more", "sentence"),
    [
        ("s3://no-such-bucket/x", {}, "no such bucket; create it"),
        ("s3://bucket/x", {"endpoint": "http://127.0.0.1:1", "timeout": "1s"}, "in 6 tries"),
        ("s3://bucket/x", {"nonsense": SECRET}, "not a store that can be opened"),
    ],
)
def test_what_goes_wrong_is_said_in_one_sentence(
    proxy: Proxy, url: str, more: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantbot_pipeline.bucket.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("quantbot_pipeline.bucket.LONGEST_PAUSE_S", 0.01)
    place = Bucket(url, options(proxy.endpoint) | more)
    for request in (lambda: place.listing(""), lambda: place.put_new("a", b"")):
        with pytest.raises(QuantbotError, match=sentence) as caught:
            request()
        assert "\n" not in str(caught.value) and SECRET not in str(caught.value)


def test_a_refusal_is_not_repeated(proxy: Proxy, bucket: str) -> None:
    proxy.begin(lambda n, method, path: "403")
    with pytest.raises(StoreError, match="access refused; check the credentials"):
        Bucket(f"s3://{bucket}/x", options(proxy.endpoint)).get("a")
    assert len(proxy.log) == 1


def test_without_the_extra_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'quantbot-pipeline\[cloud\]'"):
        Bucket("s3://bucket/x").listing("")


def test_a_local_home_loads_none_of_it() -> None:
    program = "import sys, quantbot_pipeline.api as a; a.Home('/nowhere').runs; print([m for m in sys.modules if 'obstore' in m or m.endswith(('.objects', '.bucket'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- commits and sweeps -----------------------------------------------------------------------------------------------


def test_a_commit_that_takes_too_long_gives_up(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    here = Machine(proxy, f"s3://{bucket}/lab", tmp_path, staging_max_age_s=0.0)
    with pytest.raises(StoreError, match="not committed: its upload took longer than half"):
        here.commit()
    assert sync(here.catalog).runs == 0


def test_what_was_never_committed_is_swept_and_a_failed_run_is_not(
    object_store: Store, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    here = Machine(proxy, f"s3://{bucket}/lab", tmp_path / "a")
    whole = "/".join(str(here.commit()).split("/")[-2:])
    with here.runs.begin("2024-02") as staged:
        staged.write("errors", artifact_rows("errors", 0))
        failed = staged.commit(make_manifest(staged, staged.write_logs("", ""), status="failed"))
    dead = "lab/2024-01/run_id=00000000-0000-4000-8000-000000000001/"
    for name in ("run.json", "truth/paths.parquet"):
        object_store.write(bucket, dead + name, object_store.read(bucket, f"lab/{whole}/{name}"))
    young = Machine(proxy, f"s3://{bucket}/lab", tmp_path / "b")
    assert young.runs.sweep() == 0
    old = Machine(proxy, f"s3://{bucket}/lab", tmp_path / "c", staging_max_age_s=0.0)
    assert old.runs.sweep() == 1
    left = {"/".join(key.split("/")[:3]) for key in object_store.keys(bucket)}
    assert left == {f"lab/{whole}", "lab/" + "/".join(str(failed).split("/")[-2:])}
    assert old.runs.sweep() == 0
    removed = [path for method, path, _ in proxy.log if method == "DELETE" or "delete" in path]
    assert removed


def test_an_upload_that_was_swept_is_not_vouched_for(machines: list[Machine], object_store: Store, bucket: str) -> None:
    here = machines[0]
    here.commit()

    def sweep() -> None:
        for key in object_store.keys(bucket, "lab/2024-05/"):
            object_store.client.delete_object(Bucket=bucket, Key=key)

    with here.runs.begin("2024-05") as staged:
        staged.write("errors", artifact_rows("errors", 0))
        logs = staged.write_logs("", "")

        def plan(n: int, method: str, path: str) -> None:
            if "list-type=2" in path:
                sweep()

        here.proxy.begin(plan)
        with pytest.raises(StoreError, match="is not there as it was written; run again"):
            staged.commit(make_manifest(staged, logs))
    assert object_store.keys(bucket, "lab/2024-05/") == []


# --- homes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"s3://{KEY}:{SECRET}@bucket/x", "must hold no credentials"),
        (f"az://bucket/x?sig={SECRET}", "must hold no credentials"),
        ("runs", "must be a URL that begins with s3://"),
        ("ftp://x/y", "must be a URL that begins with s3://"),
        ("s3://", "must be a URL"),
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, url: str, sentence: str
) -> None:
    assert home.exists()
    monkeypatch.setenv("QUANTBOT_RUNS", url)
    said = quantbot("leaderboard").complaint
    assert said.startswith("QUANTBOT_RUNS: ") and sentence in said and SECRET not in said


@pytest.mark.parametrize("text", [SECRET, f'["{SECRET}"]', f'{{"a": ["{SECRET}"]}}'])
def test_options_that_are_none_are_refused_without_repeating_them(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    assert home.exists()
    monkeypatch.setenv("QUANTBOT_STORE_OPTIONS", text)
    said = quantbot("leaderboard").complaint
    assert said.startswith("QUANTBOT_STORE_OPTIONS: Value error, must be a JSON object") and SECRET not in said


def test_settings_do_not_show_options(tmp_path: Path) -> None:
    made = Settings(home=tmp_path, runs="s3://b/x", store_options={"access_key_id": KEY})
    assert KEY not in repr(made) and KEY not in repr(ObjectRuns(Bucket("s3://b/x", made.store_options), tmp_path))


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert Settings(home=tmp_path, runs=f"file://{tmp_path}/elsewhere").runs_dir == tmp_path / "elsewhere"


def test_every_command_works_on_runs_in_a_store_and_no_secret_is_shown(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    local = _numbers(quantbot)
    (home / "data" / "backtest_catalog.duckdb").unlink()
    monkeypatch.setenv("QUANTBOT_RUNS", f"s3://{bucket}/lab")
    monkeypatch.setenv("QUANTBOT_STORE_OPTIONS", json.dumps(options(proxy.endpoint)))
    assert _numbers(quantbot) == local
    said = [
        quantbot("backtest", "verify", "--format", "json"),
        quantbot("validate", "--format", "json"),
        quantbot("runs", "name", "2024-01", "first", "--kind", "full"),
        quantbot("runs", "show", "first"),
        quantbot("policies"),
        quantbot("migrate", "--dry-run"),
    ]
    assert [done.status for done in said] == [0] * len(said), said
    verified = said[0].json()
    assert len(verified) == 2 and all(row["ok"] and row["run_dir"].startswith("s3://") for row in verified)
    assert all(row["ok"] for row in said[1].json())
    assert [
        row["name"] for row in quantbot("backtest", "catalog-query", "--name", "first", "--format", "json").json()
    ] == ["first"]
    proxy.begin(lambda n, method, path: "403")
    said += [
        quantbot("backtest", "path-only", "--from", "2024-02", "--to", "2024-02"),
        quantbot("backtest", "catalog-sync"),
    ]
    assert [done.status for done in said[-2:]] == [1, 1], said[-2:]
    assert "access refused" in said[-1].err
    text = "".join(done.out + done.err for done in said)
    assert KEY not in text and SECRET not in text and "Traceback" not in text
    assert leaks(home, tmp_path) == []


def _numbers(quantbot: Quantbot) -> list[object]:
    """What reports say of two months, without what tells one run from another."""
    made = quantbot("backtest", "full", "--from", "2024-01", "--to", "2024-02", "--format", "json").json()
    assert [run["status"] for run in made] == ["completed"] * 2
    board = quantbot("leaderboard", "--format", "json").json()
    frontier = quantbot("frontier", "--format", "json").json()
    rows = quantbot("query", "SELECT call_id, p0, peak_multiple FROM paths ORDER BY ALL", "--format", "json").json()
    for row in frontier:
        row.pop("run_id")
    return [[run["artifacts"] for run in made], board, frontier, rows]


def test_a_digest_of_the_url_names_the_copies(tmp_path: Path) -> None:
    url = "s3://bucket/lab"
    assert Settings(home=tmp_path, runs=url + "/").runs_dir.name == hashlib.sha256(url.encode()).hexdigest()[:16]


def test_rows_of_a_run_that_was_replicated_without_versions_are_read(
    machines: list[Machine], object_store: Store, bucket: str
) -> None:
    """Runs of earlier versions do not say the versions of their artifacts: their files are read and verified."""
    here, there, _ = machines
    run_dir = "/".join(str(here.commit()).split("/")[-2:])
    manifest = json.loads(object_store.read(bucket, f"lab/{run_dir}/run.json"))
    for entry in manifest["artifacts"].values():
        entry.pop("version")
    content = json.dumps(manifest).encode()
    object_store.write(bucket, f"lab/{run_dir}/run.json", content)
    object_store.write(bucket, f"lab/{run_dir}/_SUCCESS", hashlib.sha256(content).hexdigest().encode() + b"\n")
    assert sync(there.catalog).registered == 1
    assert len(list_runs(there.catalog)) == 1
