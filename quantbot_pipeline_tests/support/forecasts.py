"""A small market for models: a few tokens on 1h candles, calm and wild, called often enough in three months to learn from."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from quantbot_pipeline.backtest.month import MonthResult, run_month
from quantbot_pipeline.backtest.remembered import ReplayCache
from quantbot_pipeline.config import make_config
from quantbot_pipeline.home import Home
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline_tests.support import builders

DAY, HOUR = 86_400_000, 3_600_000
FIRST = builders.ms("2023-12-30")
JANUARY = builders.ms("2024-01-01")
DAYS = 93  # the candles end with March, so that the windows of its last calls are open
MONTHS = ("2024-01", "2024-02", "2024-03")
TOKENS = [f"token{i}" for i in range(8)]
CALLERS = ("ann", "bob", "cy")
CONFIG = {"interval": "1h", "horizon_ms": 24 * HOUR, "max_entry_delay_ms": 2 * HOUR, "targets": ["peak_1.1", "return"]}
OUTCOMES = ("excluded", "outcome", "outcome_known_ts_ms", "policy_return")


def candles(until: int | None = None) -> list[builders.Row]:
    """Candles of all tokens; the odd ones move three times as much. With `until` only those that had closed."""
    rows: list[builders.Row] = []
    for number, mint in enumerate(TOKENS):
        rng = np.random.default_rng(number)
        steps = rng.normal(0, 0.03 if number % 2 else 0.01, DAYS * 24 + 1)
        edges = np.exp(np.cumsum(steps))
        wick = rng.uniform(1, 1.01, DAYS * 24)
        for i, (o, c, w) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), wick.tolist(), strict=True)):
            rows.append(builders.candle(mint, FIRST + i * HOUR, o, max(o, c) * w, min(o, c) / w, c, 1.0 + i % 7))
    return [row for row in rows if until is None or row["ts_ms"] + HOUR <= until]


def calls(until: int | None = None) -> list[builders.Row]:
    """Calls, about 110 a month; a tenth names a token without candles. With `until` only those before it."""
    rng = np.random.default_rng(99)
    at = np.sort(rng.integers(JANUARY, JANUARY + 91 * DAY, 330))
    rows = []
    for i, alert in enumerate(at.tolist()):
        mint = "nothing" if i % 10 == 9 else TOKENS[int(rng.integers(len(TOKENS)))]
        rows.append(builders.call(mint, alert, CALLERS[int(rng.integers(3))], call_id=f"call {i:03}"))
    return [row for row in rows if until is None or row["alert_ts_ms"] < until]


def make_home(path: Path, until: int | None = None, threads: int = 1) -> Home:
    """A home with these calls and candles."""
    return builders.make_home(path, calls(until), candles(until), interval="1h", threads=threads)


def model(home: Home, month: str, cache: ReplayCache | None = None, **config: object) -> MonthResult:
    """Make the model run of a month."""
    made = run_month(home, "model", month, make_config(CONFIG | config), cache=cache)
    assert made is not None
    return made


def rows(made: MonthResult, artifact: str) -> pa.Table:
    """The rows of an artifact without the run's id."""
    return read_artifact(made.run_dir, made.manifest, artifact).drop_columns("run_id")


def contents(made: MonthResult) -> dict[str, str]:
    """The content hash of each artifact of the models."""
    return {
        name: entry.content_sha256 or ""
        for name, entry in made.manifest.artifacts.items()
        if entry.path.startswith("model/")
    }
