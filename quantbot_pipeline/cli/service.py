"""`quantbot ui` and `quantbot automation`: the services of a home."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from quantbot_pipeline.cli.app import app
from quantbot_pipeline.cli.options import Format, HomeFolder, open_home
from quantbot_pipeline.cli.output import note, print_rows


@app.command("automation")
def automation(
    action: Annotated[Literal["on", "off", "status"], typer.Argument(help="What to do.")] = "status",
    dry_run: Annotated[bool, typer.Option(help="Say what would change, and change nothing.")] = False,
    fmt: Format = "table",
    home: HomeFolder = None,
) -> None:
    """Turn all schedules and sensors of this home's instance on or off; they run while `quantbot ui` (or a daemon) does."""
    from quantbot_pipeline.definitions import defs
    from quantbot_pipeline.orchestration.local.switch import switch

    rows = switch(defs, open_home(home), action, dry_run=dry_run)
    print_rows(rows, fmt, "Automation" + (" (dry run)" if dry_run else ""))


@app.command("ui")
def ui(
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 3000,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only show: no daemon, and nothing can be launched or changed.")
    ] = False,
    home: HomeFolder = None,
) -> None:
    """Start the Dagster web UI and daemon on this home directory. A second one on a home needs `--read-only`."""
    from quantbot_pipeline.orchestration.launch import open_instance
    from quantbot_pipeline.orchestration.local.claim import claimed
    from quantbot_pipeline.orchestration.local.services import serve
    from quantbot_pipeline.orchestration.retries import say_again
    from quantbot_pipeline.orchestration.waiting import free_slots

    lab = open_home(home, may_begin=True)
    os.environ["QUANTBOT_HOME"] = str(lab.path)
    if "ui_url" not in lab.settings.model_fields_set:  # links in notices then lead to this UI
        reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  (compared, not bound)
        os.environ["QUANTBOT_UI_URL"] = f"http://{reached}:{port}"
    with contextlib.ExitStack() as stack:
        instance = stack.enter_context(open_instance(lab))
        if not read_only:
            folders = (lab.settings.data_dir, Path(os.environ["DAGSTER_HOME"]))
            stack.enter_context(claimed(folders, f"http://{host}:{port}"))
        os.chdir(lab.path)

        served = lab.settings.first_partition

        def chore() -> bool:
            nonlocal served
            if not read_only:
                free_slots(instance)  # dagster.yaml of an earlier version does not
                say_again(instance)
            moved = (
                lab.settings.first_partition < served
            )  # calls of an earlier month came: its partition is not served yet
            served = min(served, lab.settings.first_partition)
            return moved

        serve(host, port, note, chore, read_only=read_only)
