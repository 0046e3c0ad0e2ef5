"""What differs between two runs: in their inputs, their code, their parameters, their results.

Belongs here: which facts of a run are compared, and under which name. Results are the measures of `measures`.
"""

from collections.abc import Mapping
from typing import Any

from quantbot_pipeline.reports.measures import measured
from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, read_manifest

FACT_COLUMNS = ("part", "name", "value")
DIFFERENCE_COLUMNS = ("part", "name", "a", "b", "change")
# Of every run another one, or a digest of what is shown beside it.
_OWN = frozenset({"config_hash"})


def differences(run_dir_a: RunDirectory, run_dir_b: RunDirectory) -> list[dict[str, Any]]:
    """Return a row per fact in which the runs differ: part (inputs, code, parameters, results), name, a, b, change.

    `change` is b less a where both are numbers. Raises IntegrityError when an artifact is not what was committed.
    """
    a, b = _facts(run_dir_a), _facts(run_dir_b)
    keys = list(dict.fromkeys([*a, *b]))
    parts = list(dict.fromkeys(part for part, _ in keys))
    ordered = sorted(
        keys, key=lambda key: parts.index(key[0])
    )  # stable: facts of one run alone stand last in their part
    return [_row(key, a.get(key), b.get(key)) for key in ordered if a.get(key) != b.get(key)]


def facts(run_dir: RunDirectory) -> list[dict[str, Any]]:
    """Return a row per fact of one run: part, name, value."""
    return [{"part": part, "name": name, "value": value} for (part, name), value in _facts(run_dir).items()]


def _row(key: tuple[str, str], a: Any, b: Any) -> dict[str, Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return {"part": key[0], "name": key[1], "a": a, "b": b, "change": b - a if numbers else None}


def _facts(run_dir: RunDirectory) -> dict[tuple[str, str], Any]:
    manifest = read_manifest(run_dir)
    parts: dict[str, Mapping[str, Any]] = {
        "inputs": _inputs(manifest),
        "code": _code(manifest),
        "parameters": dict(_flat({k: v for k, v in manifest.parameters.items() if k not in _OWN})),
        "results": {f"{name}, {of}" if of else name: value for name, of, value in measured(run_dir, manifest)},
    }
    return {(part, name): value for part, facts in parts.items() for name, value in facts.items()}


def _inputs(manifest: RunManifest) -> dict[str, Any]:
    data = manifest.dataset
    return {
        "month": manifest.month,
        "run_type": manifest.run_type,
        "status": manifest.status,
        "from": data.from_,
        "to": data.to,
        "interval": data.interval,
        "calls": data.calls_count,
        "calls_excluded": data.calls_excluded,
        "fingerprint": data.fingerprint[:16],
    }


def _code(manifest: RunManifest) -> dict[str, Any]:
    git = {"git_branch": manifest.git_branch, "git_commit": manifest.git_commit, "git_dirty": manifest.git_dirty}
    return git | dict(manifest.versions)


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return the values inside a JSON value with their paths: `grid.stops[0]`."""
    if isinstance(value, dict) and value:
        return [found for key, inner in value.items() for found in _flat(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and value:
        return [found for i, inner in enumerate(value) for found in _flat(inner, f"{path}[{i}]")]
    return [(path, value)]
