"""One catalog for several machines: everybody's runs land, nobody waits, and nothing travels that did not change."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.catalog.catalog import Catalog, list_runs, reading
from quantbot_pipeline.catalog.object_catalog import OBJECT, ObjectCatalog
from quantbot_pipeline.catalog.postgres import PostgresCatalog
from quantbot_pipeline.catalog.room import answering
from quantbot_pipeline.catalog.shared import OvertakenError
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.errors import InputError, StoreError
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.manifest import Timing
from quantbot_pipeline.runs.notes import name_run
from quantbot_pipeline.runs.store import LocalRuns
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import commit_run
from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Proxy, Store, leaks, options
from quantbot_pipeline_tests.support.postgres import Postgres

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


@pytest.mark.torture
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
    monkeypatch.setattr("quantbot_pipeline.catalog.shared.FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("quantbot_pipeline.catalog.shared.TRIES", 3)
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


# --- Postgres -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(postgres: Postgres, tmp_path: Path) -> Callable[[str], Catalog]:
    """The catalog as machines of some names see it, in a database of its own."""
    pytest.importorskip("psycopg2", reason="needs the extra postgres")
    url = postgres.make_database()

    def machine(name: str) -> Catalog:
        runs = LocalRuns(tmp_path / "runs")
        return Catalog(tmp_path / name / "catalog.duckdb", runs, shared=PostgresCatalog(url, runs.place))

    return machine


def rows_of(catalog: Catalog) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of a catalog, but for when it was registered."""
    with reading(catalog) as con:
        tables = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        return {
            name: con.execute(
                f"SELECT COLUMNS(lambda c: c NOT IN ('cataloged_at', 'detected_at')) FROM {name} ORDER BY ALL"
            ).fetchall()
            for name in tables
        }


def test_postgres_holds_the_same_tables_and_rows(database: Callable[[str], Catalog], tmp_path: Path) -> None:
    here, there = database("here"), database("there")
    first = commit_run(tmp_path / "runs")
    commit_run(tmp_path / "runs", "2024-02", git_branch="a\0b", timing=Timing(total_ms=0.1 + 0.2))
    commit_run(tmp_path / "runs", "2024-02", status="failed")
    (tmp_path / "runs/2024-01/run_id=broken").mkdir()
    with pytest.raises(InputError, match=r"postgresql://postgres@/d\w+: no catalog yet"):
        list_runs(there)
    assert sync(here).published is True
    name_run(tmp_path / "runs", first.name[-36:], "best")
    assert sync(there).published is True
    alone = Catalog(tmp_path / "alone.duckdb", LocalRuns(tmp_path / "runs"))
    sync(alone)
    wanted = rows_of(alone)
    wanted["backtest_runs_catalog"] = [
        tuple("a\\0b" if value == "a\0b" else value for value in row) for row in wanted["backtest_runs_catalog"]
    ]
    found = rows_of(here)
    assert found.pop("catalog_meta") == [("base", str(tmp_path / "runs")), ("version", "3")]
    assert wanted.pop("catalog_meta") and found == wanted and len(found["quarantine"]) == 1
    assert rows_of(there) == rows_of(here)
    assert [sync(machine).published for machine in (here, there)] == [False, False]
    assert here.shared is not None
    stale = here.shared.pull(here.path)
    LocalRuns(tmp_path / "runs").to_trash(["/".join(first.parts[-2:])])
    assert sync(there).removed == 1 and len(ids(here)) == 2
    with pytest.raises(OvertakenError, match="another machine was faster"):
        here.shared.offer(here.path, stale)
    assert len(ids(there)) == 2
    with answering(here, "SELECT count(*) AS n FROM paths") as answer:
        assert [batch.to_pylist() for batch in answer.batches] == [[{"n": 2}]]


def test_four_writers_of_a_database_at_once_and_eight_syncs_land(
    database: Callable[[str], Catalog], tmp_path: Path
) -> None:
    def work(name: str) -> set[str]:
        catalog, own = database(name), set()
        for _ in range(2):
            own.add(commit_run(tmp_path / "runs").name.removeprefix("run_id="))
            sync(catalog)
        return own

    with ThreadPoolExecutor(4) as pool:
        made = set().union(*pool.map(work, [f"machine-{n}" for n in range(4)]))
    assert len(made) == 8 and ids(database("last")) == made


def test_a_database_that_is_newer_is_left_an_older_one_is_made_anew_and_none_is_a_sentence(
    database: Callable[[str], Catalog], tmp_path: Path
) -> None:
    import sqlalchemy

    here = database("here")
    commit_run(tmp_path / "runs")
    sync(here)
    assert isinstance(here.shared, PostgresCatalog)
    engine = sqlalchemy.create_engine(here.shared.url.replace("postgresql:", "postgresql+psycopg2:"))

    def become(version: str) -> None:
        with engine.begin() as con:
            con.execute(sqlalchemy.text("UPDATE catalog_state SET version = :v"), {"v": version})

    become("4")
    with pytest.raises(StoreError, match="of version 4, and this quantbot writes 3: upgrade this machine"):
        sync(here)
    become("2")
    with pytest.raises(InputError, match="no catalog yet"):
        list_runs(here)
    assert sync(here).published is True and len(ids(database("there"))) == 1
    engine.dispose()
    nowhere = replace(here, shared=PostgresCatalog(f"postgresql://u@127.0.0.1:1/x?application_name={SECRET}", "x"))
    with pytest.raises(StoreError, match=r"postgresql://u@127\.0\.0\.1:1/x: no connection") as caught:
        sync(nowhere)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


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
    before = object_store.read(url.split("/")[2], f"lab/{OBJECT}")
    said = [
        quantbot("query", "SELECT count(*) AS n FROM paths", "--home", other, "--format", "json"),
        quantbot("backtest", "catalog-query", "--home", other, "--format", "json"),
        quantbot("backtest", "catalog-sync", "--home", other),
        quantbot("validate", "--home", other),
    ]
    assert [done.status for done in said] == [0] * 4, said
    assert said[0].json()[0]["n"] > 0 and len(said[1].json()) == 1 and "1 run cataloged" in said[2].err
    assert object_store.read(url.split("/")[2], f"lab/{OBJECT}") == before, "it had nothing to add"
    text = "".join(done.out + done.err for done in said)
    assert KEY not in text and SECRET not in text and leaks(home, tmp_path) == []


@pytest.mark.parametrize(
    ("runs", "catalog", "sentence"),
    [
        (None, "s3://b/x", "needs QUANTBOT_RUNS"),
        ("s3://b/x", f"s3://{KEY}:{SECRET}@b/x", "must hold no credentials"),
        ("s3://b/x", "file:///x", "must be a URL that begins with s3://"),
        ("s3://b/x", f"postgresql://u:{SECRET}@h/d", "must hold no password"),
        ("s3://b/x", f"postgresql://h/d?password={SECRET}", "must hold no password"),
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
