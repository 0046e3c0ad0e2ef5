"""The models of every month up to the made one: remembered, read from its newest run, or made again.

Belongs here: where a month's models come from. Does not: how one is made; that is `models.training`.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantbot_pipeline.backtest.earlier_runs import EarlierRuns
from quantbot_pipeline.backtest.predicting import Calls
from quantbot_pipeline.backtest.prediction_columns import MODEL_FEATURES
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.specs import KINDS

if TYPE_CHECKING:
    from quantbot_pipeline.models.model import Model
    from quantbot_pipeline.models.targets import Target
    from quantbot_pipeline.models.walk import JudgedMonth

log = logging.getLogger(__name__)
MADE, JUDGED = "models", "judged"


def runs_of(run: Run, calls: Calls) -> EarlierRuns:
    """Return the model runs of the months of some calls."""
    return EarlierRuns(run, KINDS["model"], run.config, calls.months)


def models_of(run: Run, calls: Calls, targets: "Sequence[Target]") -> "list[list[Model]]":
    """Return the models of each month, in the order of the targets. Raises InputError without scikit-learn, where one is needed."""
    from quantbot_pipeline.models.fitting import fitting
    from quantbot_pipeline.models.walk import model_of

    runs = runs_of(run, calls)
    made: list[list[Model]] = []
    for i, inputs in enumerate(calls.months):
        key = runs.key(MADE, i)
        own = inputs is run.inputs
        # The made month is made: what another run says of it is not repeated.
        found = run.cache.get(key) if own else run.cache.get(key) or _read(runs, i, targets)
        if found is None:
            with run.record.phase("optimization"), fitting():
                start = month_start_ms(inputs.month)
                found = [model_of(calls.history, target, start) for target in targets]
        run.cache[key] = found
        made.append(found)
    return made


def judged_months(run: Run, calls: Calls, models: "Sequence[Sequence[Model]]") -> "list[list[JudgedMonth]]":
    """Return per target what each month's model said of the calls whose outcome is known; what is known already is kept."""
    from quantbot_pipeline.models.walk import judge_month

    runs = runs_of(run, calls)
    months: list[list[JudgedMonth]] = []
    for i, of_month in enumerate(models):
        rows = slice(int(calls.begins[i]), int(calls.begins[i + 1]))
        # Outcomes become known in the order of time, so their number says which they are.
        key = (*runs.key(JUDGED, i), str(int(calls.history.known[rows].sum())))
        if key not in run.cache:
            with run.record.phase("optimization"):
                run.cache[key] = [judge_month(calls.history, model, i) for model in of_month]
        months.append(run.cache[key])
    return [list(of_target) for of_target in zip(*months, strict=True)]


def _read(runs: EarlierRuns, i: int, targets: "Sequence[Target]") -> "list[Model] | None":
    """Return the models that the newest run of the same inputs, code and configuration made, every byte verified."""
    from quantbot_pipeline.models.document import from_text, model_id_of

    rows = runs.rows(i, "models", ("target", "model_id", "document"))
    if rows is None:
        return None
    documents = {row["target"]: row["document"] for row in rows if model_id_of(row["document"]) == row["model_id"]}
    try:
        return [from_text(documents[target.name], MODEL_FEATURES) for target in targets]
    except (InputError, KeyError) as e:
        log.warning("earlier models are not used, but made again: %s", e)
        return None
