"""The table of run kinds: one row says everything that the other rooms must know of a kind of run.

Belongs here: names, outputs, and which configuration a kind depends on. Does not: how its numbers are made; that is its
recipe. Assets, jobs, checks, commands, the catalog's filter and the dashboard read this table; nobody else lists kinds.
A new kind of run is a row here, a recipe in `backtest/recipes/`, and the schema of each new artifact in `artifacts/schemas.py`.
"""

from typing import NamedTuple

Key = tuple[str, str]  # of an asset: group, name


class Output(NamedTuple):
    """An asset that a kind of run makes: its key, the artifact in the run directory, and what it is, in a sentence."""

    key: Key
    artifact: str
    sentence: str


class Op(NamedTuple):
    """A step of a Dagster job. Several kinds may share one: which of its outputs are chosen decides the kind."""

    name: str
    check: str  # the step that holds its outputs against their contract
    sentence: str


class RunKind(NamedTuple):
    """A kind of run.

    name: in configuration, logs and the Python API. command: `quantbot backtest COMMAND`. job: its Dagster job. run_type and
    strategy: under which it is kept (`run_type` and `parameters.strategy_id` of run.json). outputs: its assets. extras:
    artifacts that have no asset of their own. depends_on: the fields of `BacktestConfig` that change its results. recipe: the
    module whose `make(run)` writes the artifacts. learns: whether it reads all earlier months too. weighs_size: whether it
    reads the liquidity of calls. predicts: whether it serves calls to come: it reads the candles before calls, too, and makes a
    month that has no call yet. needs: a module of an extra, without which the unattended runs leave it out. surveys: whether it looks at
    all candles of the month and of the days before, and at no later one.
    """

    name: str
    command: str
    job: str
    op: Op
    run_type: str
    outputs: tuple[Output, ...]
    depends_on: tuple[str, ...]
    recipe: str
    help: str
    about: str
    strategy: str | None = None
    extras: tuple[str, ...] = ()
    learns: bool = False
    weighs_size: bool = False
    predicts: bool = False
    needs: str | None = None
    surveys: bool = False

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The artifacts beside `alerts` and `errors`, which every run has."""
        return (*(output.artifact for output in self.outputs), *self.extras)

    @property
    def concludes(self) -> bool:
        """Whether it draws conclusions from the month's truth, and so stops where bad inputs block."""
        return not {*self.artifacts} <= {"paths", "features", "trades", "summary", "anomalies"}

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of its assets."""
        return tuple(output.key for output in self.outputs)


GRID_SEARCH = "grid-search"
_RECIPES = "quantbot_pipeline.backtest.recipes"

_WINDOW = ("interval", "latency_ms", "entry", "horizon_ms", "max_entry_delay_ms", "min_coverage")
_COSTS = ("taker_fee_bps", "slippage_bps", "stop_slippage_bps")
_POLICY = ("intrabar", "both_orders", *_COSTS, "policies", "policy_id")
_SEARCH = ("intrabar", *_COSTS, "grid", "constraints", "objective")

PATHS = Output(
    ("truth", "paths"), "paths", "What the price did after each call: peaks, 2x/3x/4x hits, drawdowns, activity."
)
FEATURES = Output(
    ("truth", "features"),
    "features",
    "What was known when each call was made: earlier calls, candles of its token and of the market.",
)
TRADES = Output(("policy", "trades"), "trades", "What exit policies would have earned on each call, after costs.")
SUMMARY = Output(
    ("policy", "summary"), "summary", "Return, risk and exposure statistics of each policy over the month's calls."
)
FRONTIER = Output(
    ("results", "frontier"), "frontier", "Every policy of the grid for every caller, ranked under constraints."
)
V1_FRONTIER = Output(
    ("results", "v1_frontier"),
    "frontier",
    "Capital-aware V1 baseline: thirty parameter pairs per caller, by final capital.",
)
V1_EQUITY = Output(("results", "v1_equity"), "equity", "The equity curve of each caller's best V1 account.")
WALK_FORWARD = Output(
    ("results", "walk_forward"), "walk_forward", "What the choice made before the month earned in it."
)
EVIDENCE = Output(
    ("results", "evidence"), "evidence", "How sure it is that a caller has an edge: verdict, e-value, intervals, costs."
)
EVIDENCE_TIMES = Output(
    ("results", "evidence_times"),
    "evidence_times",
    "How long a double takes: incidence curves against stop and silence.",
)
EVIDENCE_COSTS = Output(
    ("results", "evidence_costs"), "evidence_costs", "What size and delay cost each caller's monthly choice."
)
TUNED = Output(
    ("results", "tuned"),
    "tuned",
    "What levels tuned before the month earned in it, beside the grid's choice and holding.",
)
PREDICTIONS = Output(
    ("model", "predictions"),
    "predictions",
    "What models of earlier months predict of each call; a number counts for what the verdict of its target says.",
)
MODEL_REPORT = Output(
    ("model", "model_report"),
    "model_report",
    "How good predictions were in months that their models had not seen, and the verdict.",
)
IMPORTANCE = Output(("model", "importance"), "importance", "How much worse predictions get without a feature.")
DEPENDENCE = Output(("model", "dependence"), "dependence", "What a model predicts at each value of a feature.")
CALIBRATION = Output(("model", "calibration"), "calibration", "How often what was predicted came true.")
MODELS = Output(("model", "models"), "models", "The models of the month, as documents that score calls.")
ANOMALIES = Output(
    ("anomalies", "anomalies"),
    "anomalies",
    "What is odd in the month's candles and calls: what, where, how sure, and which calls it touches.",
)

BACKTEST = Op("backtest", "backtest_contract", "Replay the calls of each month and commit one run per month.")
V1 = Op("v1_baseline", "v1_contract", "Optimize the capital-aware baseline per caller and for the grouped account.")
WALK = Op(
    "walk_forward",
    "walk_forward_contract",
    "Apply the policy chosen on the months before to this month. Earlier months are read in the body: the declared "
    "dependency is this month's inputs, so that a range of months stays one run.",
)
PROVE = Op(
    "judge_evidence",
    "evidence_contract",
    "Judge how sure each caller's edge is, on all calls up to and including the month. Earlier months are read in the body: "
    "the declared dependency is this month's inputs, so that a range of months stays one run.",
)
TUNE = Op(
    "tune_levels",
    "tuned_contract",
    "Tune continuous levels on the months before and test them on this one, beside the grid's choice. Earlier months are read "
    "in the body: the declared dependency is this month's inputs, so that a range of months stays one run.",
)
PREDICT = Op(
    "predict",
    "model_contract",
    "Predict the month's calls by models of the months before, and judge such predictions to date. Earlier months are read in "
    "the body: the declared dependency is this month's inputs, so that a range of months stays one run.",
)
SURVEY = Op(
    "survey",
    "anomalies_contract",
    "Look for what is odd in each month's candles and calls. Nothing is removed or repaired. Earlier months are read in the "
    "body: the declared dependency is this month's inputs, so that a range of months stays one run.",
)

# In the order of the command line's help. Of the kinds of one op the narrow ones come first.
KINDS: dict[str, RunKind] = {
    kind.name: kind
    for kind in (
        RunKind(
            name="path-only",
            command="path-only",
            job="path_only",
            op=BACKTEST,
            run_type="path-only",
            outputs=(PATHS, FEATURES),
            depends_on=(*_WINDOW, "activity_move_pct"),
            recipe=f"{_RECIPES}.truth",
            help="Truth metrics of every call: peaks, hits, drawdowns.",
            about="Truth only: what the price did after each call.",
        ),
        RunKind(
            name="policy",
            command="policy",
            job="policy",
            op=BACKTEST,
            run_type="policy",
            outputs=(TRADES, SUMMARY),
            depends_on=(*_WINDOW, *_POLICY),
            recipe=f"{_RECIPES}.policy",
            help="Replay exit policies over every call: trades and summary.",
            about="Replay exit policies over the months: trades and summary.",
        ),
        RunKind(
            name="optimization",
            command="optimize",
            job="optimize",
            op=BACKTEST,
            run_type="optimization",
            strategy=GRID_SEARCH,
            outputs=(FRONTIER,),
            extras=("trades",),
            depends_on=(*_WINDOW, *_SEARCH),
            recipe=f"{_RECIPES}.search",
            help="Search each caller's policy: the frontier.",
            about="Search the policy that each caller's calls deserve: the frontier of every caller.",
        ),
        RunKind(
            name="full",
            command="full",
            job="full",
            op=BACKTEST,
            run_type="full",
            outputs=(PATHS, FEATURES, TRADES, SUMMARY, FRONTIER),
            depends_on=tuple(dict.fromkeys((*_WINDOW, "activity_move_pct", *_POLICY, *_SEARCH))),
            recipe=f"{_RECIPES}.full",
            help="Truth, policy and frontier in one run.",
            about="Truth, policy and frontier of a month in one run directory.",
        ),
        RunKind(
            name="v1-baseline",
            command="baseline",
            job="baseline",
            op=V1,
            run_type="optimization",
            strategy="v1-baseline",
            outputs=(V1_FRONTIER, V1_EQUITY),
            depends_on=(*_WINDOW, *_COSTS),
            recipe=f"{_RECIPES}.v1_baseline",
            help="The capital-aware V1 baseline, per caller and grouped.",
            about="The capital-aware V1 baseline, per caller and grouped.",
        ),
        RunKind(
            name="walk-forward",
            command="walk-forward",
            job="walk_forward_test",
            op=WALK,
            run_type="optimization",
            strategy="walk-forward",
            outputs=(WALK_FORWARD,),
            extras=("trades",),
            depends_on=(*_WINDOW, *_SEARCH, "rolling_months", "pool_calls"),
            recipe=f"{_RECIPES}.walk_forward",
            help="Whether last month's choice held up in this one.",
            about="Whether the choice made before each month held up in it.",
            learns=True,
        ),
        RunKind(
            name="tune",
            command="tune",
            job="tune",
            op=TUNE,
            run_type="optimization",
            strategy="tuned",
            outputs=(TUNED,),
            depends_on=(*_WINDOW, *_SEARCH, "rolling_months", "tune_pool_calls"),
            recipe=f"{_RECIPES}.tune",
            help="Whether tuned levels earn more than the grid's.",
            about="Whether levels tuned before each month earned more in it than the grid's choice.",
            learns=True,
        ),
        RunKind(
            name="evidence",
            command="evidence",
            job="evidence",
            op=PROVE,
            run_type="optimization",
            strategy="evidence",
            outputs=(EVIDENCE, EVIDENCE_TIMES, EVIDENCE_COSTS),
            depends_on=(*_WINDOW, *_SEARCH, "evidence"),
            recipe=f"{_RECIPES}.evidence",
            help="How sure each caller's edge is.",
            about="How sure each caller's edge is: verdicts, e-values, intervals, costs.",
            learns=True,
            weighs_size=True,
        ),
        RunKind(
            name="model",
            command="model",
            job="model",
            op=PREDICT,
            run_type="model",
            outputs=(PREDICTIONS, MODEL_REPORT, IMPORTANCE, DEPENDENCE, CALIBRATION, MODELS),
            depends_on=(*_WINDOW, "intrabar", *_COSTS, "policies", "targets"),
            recipe=f"{_RECIPES}.model",
            help="What can be predicted of calls, and whether it is better than the base rate.",
            about="Predictions of calls, and the verdict whether they know anything.",
            learns=True,
            predicts=True,
            needs="sklearn",
        ),
        RunKind(
            name="anomalies",
            command="anomalies",
            job="anomalies",
            op=SURVEY,
            run_type="anomalies",
            outputs=(ANOMALIES,),
            depends_on=(*_WINDOW, "intrabar", *_COSTS),
            recipe=f"{_RECIPES}.anomalies",
            help="What is odd in the candles and calls of each month.",
            about="What is odd in the candles and calls of each month, and which calls it touches.",
            learns=True,
            surveys=True,
        ),
    )
}

# What a month deserves when nobody names a kind: the widest kind of each op, behind backfills, schedules and the inbox.
EVERYTHING = "everything"


def run_types() -> tuple[str, ...]:
    """Return every run type, in the order of the table."""
    return tuple(dict.fromkeys(kind.run_type for kind in KINDS.values()))


def ops() -> dict[Op, list[RunKind]]:
    """Return the kinds of each op, in the order of the table."""
    found: dict[Op, list[RunKind]] = {}
    for kind in KINDS.values():
        found.setdefault(kind.op, []).append(kind)
    return found


def outputs_of(kinds: list[RunKind]) -> dict[Key, Output]:
    """Return the outputs of some kinds by the key of their asset, each once."""
    return {output.key: output for kind in kinds for output in kind.outputs}


def outputs() -> dict[Key, Output]:
    """Return the outputs of all kinds by the key of their asset."""
    return outputs_of(list(KINDS.values()))


def settings_behind(artifact: str, strategy: str | None = None) -> tuple[str, ...]:
    """Return the fields of the configuration on which an artifact depends, whichever kind made it.

    A kind that makes several artifacts depends on more than each of them does. Without a strategy of its own a kind counts as
    a grid search, as in the catalog.
    """
    makers = [kind.depends_on for kind in _makers(artifact, strategy)]
    return tuple(name for name in makers[0] if all(name in fields for fields in makers)) if makers else ()


def maker_of(artifact: str, strategy: str | None = None) -> str:
    """Return the command of the first kind that makes an artifact; `full` for what every kind makes."""
    return next((kind.command for kind in _makers(artifact, strategy)), "full")


def _makers(artifact: str, strategy: str | None) -> list[RunKind]:
    return [
        kind
        for kind in KINDS.values()
        if artifact in (output.artifact for output in kind.outputs) and strategy in (None, kind.strategy or GRID_SEARCH)
    ]


def kind_for(op: Op, chosen: set[Key]) -> RunKind:
    """Return the narrowest kind of an op that makes all the chosen outputs; the widest if none does."""
    kinds = ops()[op]
    return next((kind for kind in kinds if chosen <= set(kind.keys)), kinds[-1])


def strategy_of(key: Key) -> str | None:
    """Return the strategy that tells the runs behind an asset from others with the same artifact; None: nothing need."""
    return next((kind.strategy for kind in KINDS.values() if key in kind.keys and kind.strategy), None)
