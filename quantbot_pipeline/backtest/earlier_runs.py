"""Runs of a kind that were made before of months that a run learns from: found by inputs, configuration and code.

Belongs here: what identifies such a run, and reading it. Does not: what its rows mean.
"""

from collections.abc import Sequence
from typing import Any

from quantbot_pipeline.backtest.features import known_to_models
from quantbot_pipeline.backtest.inputs import MonthInputs, bounds_of, joint_hash
from quantbot_pipeline.backtest.provenance import parameters_of, versions
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.specs import RunKind


class EarlierRuns:
    """Runs of one kind and configuration; months: all up to the judged one, ascending. Earlier months are taken whole."""

    def __init__(self, run: Run, kind: RunKind, config: BacktestConfig, months: Sequence[MonthInputs]) -> None:
        self._run, self._kind, self._config, self._months = run, kind, config, months

    def key(self, what: str, i: int) -> tuple[str, ...]:
        """Return the key under which something that depends on month i and all before it is remembered."""
        return what, self._months[i].month, self._fingerprint(i), self._config_hash(i)

    def rows(self, i: int, artifact: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]] | None:
        """Return the rows of the newest sound run of month i; None if there is none."""
        wanted = (
            self._kind.run_type,
            self._kind.strategy,
            self._config_hash(i),
            self._fingerprint(i),
            versions()["code"],
        )
        completed = self._run.home.runs.completed(self._months[i].month)
        for run_dir, made in sorted(completed, key=lambda pair: pair[1].created_at, reverse=True):
            parameters = made.parameters
            found = (made.run_type, parameters.get("strategy_id"), parameters.get("config_hash"))
            if (*found, made.dataset.fingerprint, made.versions.get("code")) != wanted:
                continue
            try:
                rows: list[dict[str, Any]] = read_artifact(run_dir, made, artifact, columns).to_pylist()
            except IntegrityError:
                continue
            return rows
        return None

    def _fingerprint(self, i: int) -> str:
        own, earlier = self._months[i], self._months[:i]
        more = (
            known_to_models(self._run.home, own.month, [m.month for m in earlier], self._config)
            if self._kind.predicts
            else []
        )
        return joint_hash(*(m.fingerprint for m in (own, *earlier)), *more)

    def _config_hash(self, i: int) -> str:
        config = self._config if i == len(self._months) - 1 else whole(self._config)
        return config_hash_of(self._kind, config, self._months[i].month)


def whole(config: BacktestConfig) -> BacktestConfig:
    """Return a configuration for whole months."""
    return config.model_copy(update={"from_ms": None, "to_ms": None})


def config_hash_of(kind: RunKind, config: BacktestConfig, month: str) -> str:
    """Return the `config_hash` that a run of a month has."""
    return str(parameters_of(kind, config, bounds_of(month, config), month)["config_hash"])
