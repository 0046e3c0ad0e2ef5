"""`quantbot score`: what the committed models say of calls, with the verdict beside every number."""

from pathlib import Path
from typing import Annotated, Any

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.lighter import arrow_without_pandas, kernels_without_scipy
from quantbot_pipeline.cli.options import SHOWN, HomeFolder, OfInterval, add_command, open_home
from quantbot_pipeline.cli.output import note, note_all
from quantbot_pipeline.cli.showing import show
from quantbot_pipeline.errors import InputError


def _score(given: dict[str, Any]) -> None:
    arrow_without_pandas()
    kernels_without_scipy()
    from quantbot_pipeline.backtest.scoring import SCORES, newest_first, remark_of, score, with_meaning
    from quantbot_pipeline.ingest.unstored import ONE_OF, calls_since, unstored_calls
    from quantbot_pipeline.reports.predictions import verdicts_of

    lab = open_home(given["home"])
    if bool(given["paths"]) == (given["since"] is not None):
        raise InputError(ONE_OF)
    if given["paths"]:
        calls, said = unstored_calls(given["paths"], lab.calls)
        note_all(said)
    else:
        calls = calls_since(lab.calls, given["since"])
    if not calls.num_rows:
        note("no calls to score")
    verdicts = verdicts_of(lab.catalog, given["interval"])
    found = newest_first(score(lab, calls, verdicts, targets=given["target"] or (), interval=given["interval"]))
    show(lab, given, found.to_pylist(), "What models say of calls", SCORES.names, for_people=with_meaning)
    note_all(remark_of(found))


add_command(
    app,
    "score",
    "What the committed models say of calls, from files or of the store, with the verdict beside every number.",
    {
        "paths": (
            Annotated[list[Path] | None, typer.Argument(help="Files of calls, as for ingest; not stored.")],
            None,
        ),
        "since": (Annotated[str | None, typer.Option(help="Calls of the store from this UTC time on.")], None),
        "target": (Annotated[list[str] | None, typer.Option(help="Only this target; repeatable.")], None),
        "interval": (OfInterval, None),
        **SHOWN,
        "home": (HomeFolder, None),
    },
    _score,
)
