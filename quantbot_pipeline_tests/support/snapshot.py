"""What Dagster shows of the code location, as a text that people can read and compare: no description, no code.

Belongs here: names, and what ties them to each other. Everything is sorted, so that an order of lists in the code does not matter.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg


def described(defs: dg.Definitions) -> str:
    """Return the definitions as text: assets, checks, jobs, schedules, sensors, resources."""
    parts = {
        "assets": _assets(defs),
        "checks": _checks(defs),
        "jobs": _jobs(defs),
        "schedules": _schedules(defs),
        "sensors": _sensors(defs),
        "resources": ((name, {"type": type(value).__name__}) for name, value in (defs.resources or {}).items()),
    }
    return "\n".join(f"{name}\n{_items(items)}" for name, items in parts.items())


def _items(items: Iterable[tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for name, facts in sorted(items):
        lines.append(f"  {name}")
        lines += [f"    {fact}: {value}" for fact, value in facts.items() if value not in (None, "")]
    return "".join(f"{line}\n" for line in lines)


def _listed(keys: Iterable[Any]) -> str:
    return ", ".join(sorted(key.to_user_string() if isinstance(key, dg.AssetKey) else str(key) for key in keys))


def _assets(defs: dg.Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node, op = graph.get(key), defs.resolve_assets_def(key).op
        facts = {
            "group": node.group_name,
            "kinds": _listed(node.kinds),
            "op": op.name,
            "pool": op.pool,
            "partitions": node.partitions_def or "none",
            "a range is": node.backfill_policy and node.backfill_policy.policy_type.value,
            "made of": _listed(node.parent_keys),
            "materializable": None if node.is_materializable else "no",
            "automation": node.automation_condition and node.automation_condition.get_label(),
        }
        yield key.to_user_string(), facts


def _checks(defs: dg.Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        node = graph.get(key)
        facts = {"blocking": "yes" if node.blocking else "no", "partitions": node.partitions_def or "none"}
        yield f"{key.asset_key.to_user_string()} {key.name}", facts


def _jobs(defs: dg.Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in sorted(job.name for job in defs.jobs or ()):
        job = defs.resolve_job_def(name)
        facts = {
            "assets": _listed(job.asset_layer.executable_asset_keys),
            "steps": _listed(node.name for node in job.nodes),
            "partitions": job.partitions_def or "none",
            "executor": job.executor_def.name,
            "tags": _listed(f"{tag}={value}" for tag, value in job.tags.items()),
        }
        yield name, facts


def _schedules(defs: dg.Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    for schedule in defs.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition), schedule
        facts = {
            "cron": f"{schedule.cron_schedule} {schedule.execution_timezone}",
            "job": schedule.job_name,
            "at first": schedule.default_status.value,
        }
        yield schedule.name, facts


def _sensors(defs: dg.Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    for sensor in defs.sensors or ():
        facts = {
            "type": sensor.sensor_type.value,
            "looks every": f"{sensor.minimum_interval_seconds} s",
            "jobs": _listed(target.job_name for target in sensor.targets) or "none",
            "at first": sensor.default_status.value,
        }
        yield sensor.name, facts
