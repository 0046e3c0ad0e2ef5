"""Many processes at once on one home: a server with everything imported that forks them all and gathers what they say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantbot_pipeline_tests.support.serving import Serving, ask, serving

# A line on standard input is a list of tasks: each gets a process of its own, all start together. The answer is what they said.
SERVER = """
import json, os, sys, time
sys.modules["__main__"].__file__ = "server"  # else DuckDB takes it for a terminal and draws on standard output
from pathlib import Path
import duckdb
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.catalog import query_runs
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.remarks import load_newest
from quantbot_pipeline.settings import Settings

lab = Home(Settings(home=Path(sys.argv[1]), threads=1))

def work(task, name):
    if task == "sync":
        return sync(lab.catalog).runs
    if task == "rebuild":
        return sync(lab.catalog, rebuild=True).runs
    if task == "read":
        return read(float(name))
    return str(run_month(lab, task, name, make_config({})).run_dir)

def read(seconds):
    # Until the time is up: what a report, a query and an analyst's SQL ask. Runs are never fewer than before.
    seen, looks, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until or not looks:
        runs = query_runs(lab.catalog, limit=1_000_000).num_rows
        with duckdb.connect(str(lab.catalog.path), read_only=True) as con:
            (of_views, twice), = con.execute(
                "SELECT count(DISTINCT run_id), count(*) - count(DISTINCT (run_id, call_id)) FROM paths").fetchall()
            (distinct, rows), = con.execute(
                "SELECT count(DISTINCT run_id), count(*) FROM backtest_runs_catalog").fetchall()
        newest = load_newest(lab.catalog, "paths").num_rows
        assert seen <= runs and runs <= rows == distinct and of_views == rows and twice == 0 and newest > 0, (
            seen, runs, of_views, twice, rows, distinct, newest)
        seen, looks = rows, looks + 1
    return looks

def child(task, name, gate, out):
    try:
        os.read(gate, 1)
        said = {"result": work(task, name)}
    except BaseException as e:
        said = {"error": f"{type(e).__name__}: {e}"}
    os.write(out, json.dumps(said).encode())
    os._exit(0)

run_month(lab, "path-only", sys.argv[2], make_config({}))
print("ready", flush=True)
for line in sys.stdin:
    gate, opened = os.pipe()
    children = []
    for task, name in json.loads(line):
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(opened)
            child(task, name, gate, into)
        os.close(into)
        children.append((pid, out))
    os.close(opened)
    os.close(gate)
    said = []
    for pid, out in children:
        with os.fdopen(out) as pipe:
            said.append(json.loads(pipe.read() or '{"error": "died"}'))
        os.waitpid(pid, 0)
    print(json.dumps(said), flush=True)
"""


class Crowd:
    """Starts processes together and waits for all of them."""

    def __init__(self, process: Serving) -> None:
        self._process = process

    def at_once(self, tasks: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """What each task said: `result` or `error`."""
        answers: list[dict[str, Any]] = ask(self._process, tasks)
        return answers


@contextmanager
def crowd(home: Path, month: str) -> Iterator[Crowd]:
    """The server on this home; it makes a run of `month` first."""
    with serving(SERVER, home, month) as process:
        yield Crowd(process)
