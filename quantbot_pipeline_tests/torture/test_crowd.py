"""Runs, syncs and readers at once: no run is lost, none is there twice, and no reader ever sees an error or a half."""

from pathlib import Path
from typing import NamedTuple

import pytest

from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.verify import check_run
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.content import ask, content
from quantbot_pipeline_tests.support.crowd_server import crowd
from quantbot_pipeline_tests.support.labs import MONTHS, run_dirs
from quantbot_pipeline_tests.support.sizes import sizes
from quantbot_pipeline_tests.support.soundness import leftovers
from quantbot_pipeline_tests.torture.conftest import Tally

RECIPES = ("path-only", "full")


class Size(NamedTuple):
    """How many of each are started together, how often, and how long a reader reads."""

    rounds: int
    runs: int
    syncs: int
    readers: int
    reading_s: float


@pytest.mark.parametrize("size", sizes(Size(1, 6, 4, 2, 0.2), Size(20, 16, 8, 4, 4.0)))
def test_a_crowd_loses_nothing(home: Path, size: Size, tally: Tally) -> None:
    rounds, runs, syncs, readers, reading_s = size
    lab = Home(Settings(home=home, threads=1))
    committed: set[Path] = set()
    looks = 0
    with crowd(home, MONTHS[0]) as server:
        committed |= run_dirs(home)
        sync(lab.catalog)
        for turn in range(rounds):
            making = [(RECIPES[i % 2], MONTHS[(turn + i) % len(MONTHS)]) for i in range(runs)]
            working = [("rebuild" if i == 0 else "sync", "") for i in range(syncs)]
            said = server.at_once([*making, *working, *[("read", str(reading_s))] * readers])
            assert [one["error"] for one in said if "error" in one] == []
            made = {Path(one["result"]) for one in said[:runs]}
            assert len(made) == runs and not made & committed
            committed |= made
            looks += sum(one["result"] for one in said[runs + syncs :])
            assert sync(lab.catalog).quarantined == 0
            cataloged = [d for (d,) in ask(lab.catalog.path, "SELECT run_dir FROM backtest_runs_catalog")]
            assert sorted(cataloged) == sorted(str(d.relative_to(lab.runs.folder)) for d in committed)
            assert ask(lab.catalog.path, "SELECT count(DISTINCT run_id) FROM paths") == [(len(committed),)]
    assert run_dirs(home) == committed
    for folder in committed:
        assert check_run(folder).status == "completed"
    incremental = content(lab.catalog.path)
    sync(lab.catalog, rebuild=True)
    assert content(lab.catalog.path) == incremental
    assert leftovers(home) == set() and list((lab.runs.folder / ".staging").iterdir()) == []
    tally("concurrent runs: none lost, none twice", tried=rounds * runs, detected=0)
    tally("concurrent syncs: none failed", tried=rounds * syncs, detected=0)
    tally("looks of concurrent readers: no error", tried=looks, detected=0)
