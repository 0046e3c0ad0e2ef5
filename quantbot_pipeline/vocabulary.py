"""The words that several rooms share: intervals, kinds and states of runs, why a call is left out, how a trade ends.

Belongs here: a word that stands in a file, a column or a command and is known in more than one package. Does not: anything
that only one package uses.
"""

from typing import Literal

ALL_CALLERS = "__all__"  # the name under which all callers pooled have their rows

Interval = Literal["1m", "5m", "15m", "1h"]
INTERVALS_MS: dict[str, int] = {"1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000}

RunStatus = Literal["pending", "running", "completed", "failed"]

# Whether a call has a window; the engine writes the position.
CALL_STATUSES = ("included", "no_candles", "no_entry", "no_window", "low_coverage")
INCLUDED, NO_CANDLES, NO_ENTRY, NO_WINDOW, LOW_COVERAGE = range(5)

# How a trade ends; the engine writes the position.
EXIT_REASONS = (
    "time_stop",
    "stop_loss",
    "hard_stop",
    "trailing_stop",
    "take_profit",
    "ladder_complete",
    "horizon",
    "data_end",
)
TIME_STOP, STOP_LOSS, HARD_STOP, TRAILING, TAKE_PROFIT, LADDER, HORIZON, DATA_END = range(8)
PROTECTIVE_EXITS = ("stop_loss", "hard_stop", "trailing_stop")
MUCH_ENDED = 0.2  # a greater share of `data_end` exits is remarked: a token that stopped trading cannot be sold

SCHEMES = ("anchored", "rolling")  # of the walk-forward

# Of a row of errors.parquet.
LEVELS = ("error", "warning", "info")
PHASES = ("plan", "coverage", "slice", "execution", "optimization")
