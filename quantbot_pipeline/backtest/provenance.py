"""Where a run comes from: the commit, the versions, the configuration that its results depend on, and their hashes."""

import functools
import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.market.features.names import FEATURE_SET
from quantbot_pipeline.months import month_start_ms, next_month
from quantbot_pipeline.replay.policies import canonical_json
from quantbot_pipeline.sources import source_digest
from quantbot_pipeline.specs import RunKind
from quantbot_pipeline.version import __version__

# Fields that came after runs had been made: at their defaults they are not mentioned, so that the hash is that of those runs.
LATER_FIELDS = ("pool_calls",)


def parameters_of(kind: RunKind, config: BacktestConfig, bounds: tuple[int, int], month: str) -> dict[str, Any]:
    """The configuration that this kind of run depends on, and its hash; part of a month is another configuration."""
    values = config.model_dump()
    chosen = {
        key: values[key]
        for key in kind.depends_on
        if key not in LATER_FIELDS or values[key] != BacktestConfig.model_fields[key].default
    }
    if "policies" in chosen:
        chosen["policies"] = [json.loads(canonical_json(p)) for p in config.parsed_policies().values()]
    if kind.strategy is not None:
        chosen["strategy_id"] = kind.strategy
    if bounds != (month_start_ms(month), month_start_ms(next_month(month))):
        chosen |= {"from_ms": bounds[0], "to_ms": bounds[1]}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    ids = list(config.parsed_policies()) if "policies" in chosen else []
    # What identifies a run beside its configuration: no part of the hash, which is that of earlier versions.
    identity: dict[str, Any] = {"policy_id": ids[0]} if len(ids) == 1 else {}
    if "features" in kind.artifacts or kind.predicts:
        identity["feature_set"] = FEATURE_SET
    return {"config_hash": hashlib.sha256(text.encode()).hexdigest()[:16], **chosen, **identity}


# What computes a number of a run. A change elsewhere, in a report or a command, leaves runs as they are.
COMPUTES = (
    "artifacts",
    "backtest",
    "config.py",
    "evidence",
    "market",
    "models",
    "months.py",
    "replay",
    "search",
    "specs.py",
    "vocabulary.py",
)


@functools.cache
def git_provenance() -> tuple[str | None, str | None, bool | None]:
    """(commit, branch, dirty) of the checkout this code runs from; Nones outside one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                # Git distrusts a checkout of another user, as a service's is; but it is the code that is running already.
                ["git", "-c", "safe.directory=*", "-C", str(here), *arguments],  # noqa: S607  (the git of whoever runs this)
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None, None
    status = git("status", "--porcelain")
    return git("rev-parse", "HEAD"), git("symbolic-ref", "--short", "HEAD"), None if status is None else bool(status)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what computes and writes; `code` is a digest of the sources that compute a number."""
    return {
        "python": platform.python_version(),
        "quantbot": __version__,
        "code": source_digest(COMPUTES),
        **{name: version(name) for name in ("dagster", "duckdb", "pyarrow", "numpy")},
    }
