"""Months (24, or `--months`) of the sample market backfilled from the UI in one Dagster run, against the same work in one process without Dagster.

The UI is a real `quantbot ui` (web server, daemon, code server) asked through GraphQL, with the pauses that every home has; the time is
from the click to the end that the UI shows. The other process calls the recipes and knows no Dagster. Wall time, taken in turns.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import measuring
from quantbot_pipeline.home import Home
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.ingest.candles import ingest_candles
from quantbot_pipeline.market.calls import month_statistics
from quantbot_pipeline.market.candle_files import CandleStore, month_rows
from quantbot_pipeline.market.sample import BEGIN_MS, generate
from quantbot_pipeline.months import month_of, month_start_ms, months_before
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS

COPY_MONTHS = 6  # of a sample market; every further half-year has other tokens
ROUNDS = 3
RECIPES = ("full", "v1-baseline", "walk-forward", "evidence")  # what both make
RUN_TIMES = """query ($id: String!) { runsOrError(filter: { tags: [{ key: "dagster/backfill", value: $id }] }) {
    ... on Runs { results { runId creationTime startTime endTime assetMaterializations { partition assetKey { path } } } } } }"""


def run(options: argparse.Namespace) -> None:
    """Measure both in turns and print wall seconds."""
    from quantbot_pipeline.specs import KINDS, outputs_of
    from quantbot_pipeline_tests.support.servers import quantbot_ui

    rounds, copies = min(options.repeats, ROUNDS), -(-options.months // COPY_MONTHS)
    measuring.title(
        f"Backfill of {copies * COPY_MONTHS} months: one Dagster run launched in the UI, and one process without Dagster"
    )
    assets = [
        "inputs/alerts",
        "inputs/candles",
        *("/".join(key) for key in outputs_of([KINDS[name] for name in RECIPES])),
    ]
    with tempfile.TemporaryDirectory(prefix="quantbot-bench-") as folder:
        lab = Home(Settings(home=Path(folder) / "home"))
        lab.path.mkdir()
        months = write_market(lab, copies)
        threads = str(lab.settings.threads)
        server = quantbot_ui(lab.path, QUANTBOT_THREADS=threads, QUANTBOT_SENSOR_INTERVAL_S="15")
        try:
            server.wait("code location", server.locations)
            rows = []
            for _ in range(rounds):
                plain = _without_dagster(lab.path)
                began = time.time()
                backfill = server.launch_backfill(assets, months)
                patience_s = 30.0 * len(months)
                answer = server.wait(
                    "end of the backfill", functools.partial(server.finished_backfill, backfill), patience_s
                )
                whole = time.time() - began
                assert answer["partitionBackfillOrError"]["status"] == "COMPLETED_SUCCESS", answer
                (one,) = server.ask(RUN_TIMES, id=backfill)["runsOrError"]["results"]
                assert len(one["assetMaterializations"]) == len(months) * len(assets)
                tick, start, spent = (
                    one["creationTime"] - began,
                    one["startTime"] - one["creationTime"],
                    one["endTime"] - one["startTime"],
                )
                rows.append((plain, tick, start, spent, whole, (start + spent) / plain, (whole - tick) / plain))
        finally:
            server.stop()
    parts = ("without Dagster s", "daemon tick s", "queue and start s", "run s", "in all s")
    head = (*parts, "(start + run) / without", "(in all - tick) / without")
    measuring.table(("round", *head), [(i + 1, *(f"{v:.2f}" for v in row)) for i, row in enumerate(rows)])
    measuring.table(
        ("", *head), [("median", *(f"{measuring.median([row[i] for row in rows]):.2f}" for i in range(len(head))))]
    )
    print(
        "target: at most 1.40. Dagster's daemon looks every 30 s whether a backfill has ended; no setting changes that."
    )


def write_market(lab: Home, copies: int) -> list[str]:
    """The stores with so many sample markets one after the other; their months."""
    files = lab.path / "generated"
    files.mkdir()
    for copy in range(copies):
        calls, candles = generate(seed=7 + copy)
        shift = month_start_ms(months_before(month_of(BEGIN_MS), COPY_MONTHS * copy)) - BEGIN_MS
        moved = _shifted(calls.select(["caller_name", "mint", "chain", "alert_ts_ms"]), "alert_ts_ms", shift)
        pq.write_table(moved, files / f"calls_{copy}.parquet")
        pq.write_table(_shifted(candles, "ts_ms", shift), files / f"candles_{copy}.parquet")
    ingest_calls(sorted(files.glob("calls_*")), lab.calls)
    ingest_candles(
        sorted(files.glob("candles_*")),
        CandleStore(lab.candles.folder, memory_limit=lab.settings.memory_limit),
        "5m",
    )
    months = list(month_statistics(lab.calls))
    assert len(months) == copies * COPY_MONTHS, months
    return months


def _shifted(table: pa.Table, column: str, by: int) -> pa.Table:
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pc.add(table[column], by))


def _without_dagster(home: Path) -> float:
    """Seconds of the work alone, in a process of its own that has imported and compiled everything."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.backfill", str(home)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _work(lab: Home) -> float:
    from quantbot_pipeline.backtest.month import run_month
    from quantbot_pipeline.backtest.remembered import ReplayCache
    from quantbot_pipeline.config import make_config
    from quantbot_pipeline.replay.kernel import warm_up

    warm_up()
    began = time.perf_counter()
    months, config = list(month_statistics(lab.calls)), make_config({})
    for month in months:
        for interval in INTERVALS_MS:
            month_rows(lab.candles.folder, interval, month)
    for recipe in RECIPES:
        cache: ReplayCache = {}
        for month in months:
            run_month(lab, recipe, month, config, cache=cache)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(_work(Home(Settings(home=Path(sys.argv[1])))))
