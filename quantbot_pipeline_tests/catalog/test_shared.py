"""One catalog for several machines: everybody's runs land, nobody waits, and nothing travels that did not change."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.catalog.catalog import Catalog, list_runs
from quantbot_pipeline.catalog.object_catalog import OBJECT, ObjectCatalog
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import commit_run
from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Proxy, Store, leaks, options

pytestmark = pytest.mark.usefixtures("credentials")


class Machines:
    """Machines whose runs lie in one folder (a shared disk), and whose catalog is an object."""

    def __init__(self, proxy: Proxy, url: str, folder: Path) -> None:
        self.proxy, self.url, self.folder, self.runs = proxy, url, folder, folder / "runs"
        self.endpoint = proxy.endpoint

    def __getitem__(self, name: str) -> Catalog:
        """The catalog as a machine of this name sees it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / ".shared-catalog.probed.json").write_text(json.dumps({"quoted": True, "plain": True}))
        shared = ObjectCatalog(Bucket(self.url, options(self.endpoint)))
        return Catalog(folder / "catalog.duckdb", LocalRuns(self.runs), shared=shared)

    def requests(self) -> Counter[str]:
        """Requests since the proxy began, by method."""
        return Counter(method for method, *_ in self.proxy.log)


@pytest.fixture
def machines(object_store: Store, tmp_path: Path) -> Iterator[Machines]:
    with Proxy(object_store.endpoint) as proxy:
        yield Machines(proxy, f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab", tmp_path)


def ids(catalog: Catalog) -> set[str]:
    return {row["run_id"] for row in list_runs(catalog, limit=1000)}


def test_eight_writers_at_once_and_twenty_four_syncs_land(machines: Machines, object_store: Store) -> None:
    machines.endpoint = object_store.endpoint

    def work(name: str) -> set[str]:
        catalog, own = machines[name], set()
        for _ in range(3):
            own.add(commit_run(machines.runs).name.removeprefix("run_id="))
            sync(catalog)
            assert own <= ids(machines["reader of " + name]), "what a sync registered is there for everybody"
        return own

    with ThreadPoolExecutor(8) as pool:
        made = set().union(*pool.map(work, [f"machine {n}" for n in range(8)]))
    assert len(made) == 24 and ids(machines["last"]) == made


def test_a_state_travels_once_and_a_sync_with_nothing_new_writes_nothing(machines: Machines) -> None:
    here, there = machines["here"], machines["there"]
    commit_run(machines.runs)
    with pytest.raises(InputError, match=r"s3://.*/backtest_catalog\.duckdb: no catalog yet"):
        list_runs(there)
    assert sync(here).published is True
    machines.proxy.begin()
    assert ids(there) == ids(there) == ids(here)
    assert machines.requests() == {"HEAD": 3, "GET": 1}
    before = there.path.read_bytes()
    for _ in "ab":
        assert [sync(machine).published for machine in (here, there)] == [False, False]
    assert machines.requests()["PUT"] == 0 and there.path.read_bytes() == before == here.path.read_bytes()
    commit_run(machines.runs)
    assert sync(there).registered == 1 and len(ids(here)) == 2


def test_an_answer_that_was_lost_is_a_success_and_whoever_is_overtaken_applies_its_own(machines: Machines) -> None:
    here, there = machines["here"], machines["there"]
    commit_run(machines.runs)
    machines.proxy.begin(lambda n, method, path: "lost" if method == "PUT" and n < 4 else None)
    assert sync(here).runs == 1 and len(ids(there)) == 1
    second = commit_run(machines.runs)
    late: list[int] = []

    def overtake(n: int, method: str, path: str) -> None:
        if method == "PUT" and not late:
            late.append(n)
            commit_run(machines.runs)
            sync(there)

    machines.proxy.begin(overtake)
    assert sync(here).runs == 3
    assert second.name.removeprefix("run_id=") in ids(there) and len(ids(here)) == 3


def test_whoever_is_always_overtaken_says_so_and_leaves_everything(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantbot_pipeline.catalog.sync.FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("quantbot_pipeline.catalog.sync.SWAPS", 3)
    here = machines["here"]
    commit_run(machines.runs)
    sync(here)
    before = here.path.read_bytes()
    commit_run(machines.runs)
    machines.proxy.begin(lambda n, method, path: "412" if method == "PUT" else None)
    with pytest.raises(StoreError, match="other machines were faster 3 times; run again"):
        sync(here)
    assert here.path.read_bytes() == before and machines.requests()["PUT"] == 3


def test_a_catalog_of_a_newer_version_is_left_and_a_broken_one_is_made_anew(
    machines: Machines, object_store: Store
) -> None:
    here, bucket = machines["here"], machines.url.split("/")[2]
    commit_run(machines.runs)
    sync(here)
    with duckdb.connect(str(here.path)) as con:
        con.execute("UPDATE catalog_meta SET value = '4' WHERE key = 'version'")
    newer = here.path.read_bytes()
    object_store.write(bucket, f"lab/{OBJECT}", newer)
    commit_run(machines.runs)
    with pytest.raises(StoreError, match="of version 4, and this quantbot writes 3: upgrade this machine"):
        sync(machines["there"])
    assert object_store.read(bucket, f"lab/{OBJECT}") == newer
    object_store.write(bucket, f"lab/{OBJECT}", b"no DuckDB file")
    report = sync(here)
    assert report.runs == 2 and report.set_aside is not None and len(ids(machines["there"])) == 2


def test_views_of_a_shared_catalog_say_how_files_are_read(machines: Machines) -> None:
    commit_run(machines.runs)
    sync(machines["here"])
    assert len(ids(machines["there"])) == 1
    with (
        duckdb.connect(str(machines["there"].path), read_only=True) as con,
        pytest.raises(duckdb.Error, match="quantbot query` fetches what it reads"),
    ):
        con.execute("SELECT * FROM paths").fetchall()


# --- homes ------------------------------------------------------------------------------------------------------------


def test_a_second_home_reads_what_the_first_registered(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, object_store: Store, tmp_path: Path
) -> None:
    url = f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"
    for name, value in {
        "RUNS": url,
        "CATALOG": url,
        "STORE_OPTIONS": json.dumps(options(object_store.endpoint)),
    }.items():
        monkeypatch.setenv(f"QUANTBOT_{name}", value)
    made = quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-01", "--format", "json")
    assert [run["status"] for run in made.json()] == ["completed"]
    other = tmp_path / "other"
    other.mkdir()
    said = [
        quantbot("query", "SELECT count(*) AS n FROM paths", "--home", other, "--format", "json"),
        quantbot("backtest", "catalog-query", "--home", other, "--format", "json"),
        quantbot("backtest", "catalog-sync", "--home", other),
        quantbot("validate", "--home", other),
    ]
    assert [done.status for done in said] == [0] * 4, said
    assert said[0].json()[0]["n"] > 0 and len(said[1].json()) == 1 and "1 run cataloged" in said[2].err
    text = "".join(done.out + done.err for done in said)
    assert KEY not in text and SECRET not in text and leaks(home, tmp_path) == []


@pytest.mark.parametrize(
    ("runs", "catalog", "sentence"),
    [
        (None, "s3://b/x", "needs QUANTBOT_RUNS"),
        ("s3://b/x", f"s3://{KEY}:{SECRET}@b/x", "must hold no credentials"),
        ("s3://b/x", "file:///x", "must be a URL that begins with s3://"),
    ],
)
def test_a_place_that_is_none_is_refused(
    home: Path,
    quantbot: Quantbot,
    monkeypatch: pytest.MonkeyPatch,
    runs: str | None,
    catalog: str,
    sentence: str,
) -> None:
    assert home.exists()
    if runs is not None:
        monkeypatch.setenv("QUANTBOT_RUNS", runs)
    monkeypatch.setenv("QUANTBOT_CATALOG", catalog)
    said = quantbot("leaderboard").complaint
    assert said.startswith("QUANTBOT_CATALOG: ") and sentence in said and SECRET not in said


def test_a_home_without_the_setting_shares_nothing(tmp_path: Path) -> None:
    assert Home(Settings(home=tmp_path)).catalog.shared is None
    assert replace(Home(Settings(home=tmp_path)).catalog, shared=None).base == str(tmp_path / "runs")
