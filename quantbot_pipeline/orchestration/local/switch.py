"""The switch for unattended work: all schedules and sensors of this code location on or off in the home's instance.

It uses Dagster's own commands on the same instance as the UI, so a switch made here shows there and the other way round.
"""

import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import dagster as dg

from quantbot_pipeline.errors import StoreError
from quantbot_pipeline.orchestration.launch import LOCATION, open_instance

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home


def switch(
    defs: dg.Definitions, home: "Home", action: Literal["on", "off", "status"], *, dry_run: bool = False
) -> list[dict[str, str]]:
    """Turn everything on or off; returns one row per schedule and sensor: name, kind, what it does, before, now.

    With `dry_run` nothing is changed, and `now` is what it would be. Raises StoreError when Dagster refuses.
    """
    before = _statuses(defs, home)
    wanted = {"on": "on", "off": "off"}.get(action)
    after = before
    if wanted is not None and dry_run:
        after = dict.fromkeys(before, wanted)
    elif wanted is not None:
        _start_all() if wanted == "on" else _stop_all(home)
        after = _statuses(defs, home)
    return [
        {"name": name, "kind": kind, "before": now, "now": after[(kind, name)], "does": _description(defs, kind, name)}
        for (kind, name), now in before.items()
    ]


def _statuses(defs: dg.Definitions, home: "Home") -> dict[tuple[str, str], str]:
    with open_instance(home) as instance:
        running = {
            (state.instigator_type.value.lower(), state.instigator_name)
            for state in instance.all_instigator_state()
            if state.is_running
        }
    names = [("schedule", s.name) for s in defs.schedules or []] + [("sensor", s.name) for s in defs.sensors or []]
    return {(kind, name): "on" if (kind, name) in running else "off" for kind, name in names}


def _start_all() -> None:
    """Starting needs the loaded code location, which Dagster's command brings up."""
    for kind in ("schedule", "sensor"):
        done = subprocess.run(
            [sys.executable, "-m", "dagster", kind, "start", "--start-all", "-m", LOCATION],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise StoreError(f"dagster {kind} start: {lines[-1][:300]}")


def _stop_all(home: "Home") -> None:
    with open_instance(home) as instance:
        for state in instance.all_instigator_state():
            if state.is_running:
                is_schedule = state.instigator_type.value == "SCHEDULE"
                stop = instance.stop_schedule if is_schedule else instance.stop_sensor
                stop(state.instigator_origin_id, state.selector_id, None)


def _description(defs: dg.Definitions, kind: str, name: str) -> str:
    found = (defs.schedules if kind == "schedule" else defs.sensors) or []
    description = next((d.description for d in found if d.name == name), None) or ""
    return " ".join(description.split())
