"""The words that several rooms share: intervals, kinds and states of runs, why a call is left out, how a trade ends.

Belongs here: a word that stands in a file, a column or a command and is known in more than one package. Does not: anything
that only one package uses.
"""

from typing import Literal, get_args

ALL_CALLERS = "__all__"  # the name under which all callers pooled have their rows

# The length of a candle: a divisor of a day, so that every candle opens on one grid of UTC.
Interval = Literal["1m", "2m", "3m", "5m", "10m", "15m", "20m", "30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d"]
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
INTERVALS_MS: dict[str, int] = {name: int(name[:-1]) * _UNITS_MS[name[-1]] for name in get_args(Interval)}

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

IN_SAMPLE, OUT_OF_SAMPLE = "in sample", "out of sample"  # whether what is shown was chosen on the calls it is shown of
SCHEMES = ("anchored", "rolling")  # of the walk-forward

# What is said of a caller, in the order in which tables show it.
VERDICTS = ("evidence", "inconclusive", "none")

# Of the guard: whether tuned levels earned more than the grid's on the same test calls.
TUNED_VERDICTS = ("tuned better", "grid better", "not shown")
LEANING_VERDICTS = (
    "leaning better",
    "not leaning better",
    "not shown",
)  # the grid's choice leaning on all callers, and not
HOLD_VERDICTS = ("grid better", "hold better", "not shown")  # the grid's choice, and holding
DEFAULT_TARGETS = ("hit_2x", "peak_1.5", "drawdown_30", "return")  # what is predicted of a call
# Of predictions: how a model came about, which models a report compares (the blend is the one that predicts), and over what.
MODEL_STATUSES = ("fitted", "no train call", "too few train calls", "too few of a class")
MODELS = ("base", "caller", "linear", "boosting", "blend")
MODEL_SCOPES = ("month", "to_date")
BLEND, TO_DATE = MODELS[-1], MODEL_SCOPES[-1]  # the rows that carry the verdict
WHOLE_GROUP = "__all__"  # the feature under which a whole group of features is shuffled

# What is said of a target's predictions, and of the money of the calls that they take; in the order in which tables show it.
MODEL_VERDICTS = ("better", "no better than the caller's rate", "no better than the base rate", "too little data")
BETTER, NO_BETTER_THAN_CALLER, NO_BETTER_THAN_BASE, TOO_LITTLE_DATA = MODEL_VERDICTS
MONEY_VERDICTS = ("earns more", "not shown")
EARNS_MORE, MONEY_NOT_SHOWN = MONEY_VERDICTS

# Of a row of errors.parquet.
LEVELS = ("error", "warning", "info")
PHASES = ("plan", "coverage", "slice", "execution", "optimization")

# What can be odd, in the order in which reports show it; and how bad it is, the worst first.
ANOMALY_KINDS = (
    "price_spike",
    "unit_change",
    "flat_line",
    "outage",
    "gap",
    "wash_volume",
    "duplicate_series",
    "time_shift",
    "interval_mismatch",
    "call_burst",
    "copied_calls",
    "late_calls",
    "deleted_calls",
    "regime",
    "prediction_drift",
)
SEVERITIES = ("error", "warning", "info")
SUBJECT_TYPES = ("mint", "caller", "pair", "market", "target")
