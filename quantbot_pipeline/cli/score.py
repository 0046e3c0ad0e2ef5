"""`quantbot score`: what the committed models say of calls, with the verdict beside every number."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.arrow import arrow_without_pandas
from quantbot_pipeline.cli.options import SHOWN, HomeFolder, OfInterval, add_command, open_home
from quantbot_pipeline.cli.output import note, note_all
from quantbot_pipeline.cli.showing import show
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import parse_day

if TYPE_CHECKING:
    import pyarrow as pa

    from quantbot_pipeline.home import Home

ALWAYS = (0, 1 << 62)


def _score(given: dict[str, Any]) -> None:
    arrow_without_pandas()
    from quantbot_pipeline.backtest.scoring import SCORES, newest_first, remark_of, score, with_meaning
    from quantbot_pipeline.reports.predictions import verdicts_of

    lab = open_home(given["home"])
    if bool(given["paths"]) == (given["since"] is not None):
        raise InputError("score wants files of calls, or --since TIME for calls of the store: give one of the two")
    calls = _of_files(lab, given["paths"]) if given["paths"] else _of_store(lab, given["since"])
    if not calls.num_rows:
        note("no calls to score")
    verdicts = verdicts_of(lab.catalog, given["interval"])
    found = newest_first(score(lab, calls, verdicts, targets=given["target"] or (), interval=given["interval"]))
    show(lab, given, found.to_pylist(), "What models say of calls", SCORES.names, for_people=with_meaning)
    note_all(remark_of(found))


def _of_store(lab: "Home", since: str) -> "pa.Table":
    from quantbot_pipeline.market.calls import read_calls

    return read_calls(lab.calls, _moment(since), ALWAYS[1]).calls


def _moment(text: str) -> int:
    """Return a day, a month or an ISO time as UTC ms. Raises InputError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return parse_day(text, end=False)
        except InputError:
            raise InputError(f"--since {text!r}: not a time; write 2024-05, 2024-05-01 or 2024-05-01T12:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _of_files(lab: "Home", paths: list[Path]) -> "pa.Table":
    """Return the calls of files, judged as an ingest judges them, and not stored; what is rejected is said."""
    from quantbot_pipeline.ingest.calls import ingest_calls
    from quantbot_pipeline.market.calls import CallStore, read_calls

    with tempfile.TemporaryDirectory(prefix="quantbot-score-") as folder:
        store = CallStore(Path(folder) / "alerts.duckdb", lab.calls.memory_limit, lab.calls.lock_timeout_s)
        report = ingest_calls(paths, store)
        report.require_some()
        read = read_calls(store, *ALWAYS)
    for reason, rows in read.rejected.items():
        note(f"{rows} calls rejected: {reason}")
    return read.calls


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
