"""The quality of a month's inputs, as one run saw them: calls without a window, gaps in the windows, rejected candles.

Which numbers are bad is a matter of settings.
"""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from quantbot_pipeline.runs.manifest import RunDirectory, RunManifest, read_manifest
from quantbot_pipeline.runs.verify import read_artifact
from quantbot_pipeline.settings import Settings
from quantbot_pipeline.vocabulary import INTERVALS_MS


class Quality(NamedTuple):
    """Shares in [0, 1]; None where a month has nothing to take a share of."""

    calls: int
    excluded_share: float | None
    mean_coverage: float | None
    rejected_candles: int
    rejected_share: float | None


def read_quality(run_dir: RunDirectory) -> Quality:
    """The quality of a committed run's inputs. Raises IntegrityError when a file is not what was committed."""
    manifest = read_manifest(run_dir)
    paths = read_artifact(run_dir, manifest, "paths", ["mint", "entry_ts_ms", "coverage"])
    return measure(manifest, paths, read_artifact(run_dir, manifest, "errors", ["details"]))


def measure(manifest: RunManifest, paths: pa.Table, errors: pa.Table) -> Quality:
    """The quality of one run's inputs."""
    calls, excluded = manifest.dataset.calls_count, manifest.dataset.calls_excluded
    step = INTERVALS_MS[manifest.dataset.interval]
    candles = window_candles(paths, manifest.parameters["horizon_ms"], step)
    rejected = rejected_candles(errors)
    return Quality(
        calls=calls,
        excluded_share=excluded / calls if calls else None,
        mean_coverage=float(np.mean(paths["coverage"].to_numpy())) if paths.num_rows else None,
        rejected_candles=rejected,
        rejected_share=rejected / (candles + rejected) if candles + rejected else None,
    )


def window_candles(paths: pa.Table, horizon_ms: int, interval_ms: int) -> float:
    """Candles in the windows, those where windows of one token overlap counted once; from coverage, so nearly exact."""
    if not paths.num_rows:
        return 0.0
    mint = paths["mint"].combine_chunks().dictionary_encode().indices.to_numpy()
    entry = paths["entry_ts_ms"].to_numpy()
    order = np.lexsort([entry, mint])
    own = np.full(len(order), horizon_ms)  # of each window, up to where the token's next one begins
    own[:-1] = np.where(mint[order][1:] == mint[order][:-1], np.diff(entry[order]), horizon_ms)
    covered = np.minimum(own, horizon_ms) * paths["coverage"].to_numpy()[order]
    return float(covered.sum() / interval_ms)


def rejected_candles(errors: pa.Table) -> int:
    """Candles of the windows that ingest rejected, as the run reported them: one row per token and reason."""
    details = [json.loads(text) for text in errors["details"].to_pylist() if text]
    return sum(d["rows"] for d in details if "rows" in d and "mint" in d)


def shortcomings(quality: Quality, settings: Settings) -> list[str]:
    """What is past the limits of the settings, as text; nothing for a month without calls."""
    found = []
    if quality.excluded_share is not None and quality.excluded_share > settings.max_excluded_share:
        found.append(f"{quality.excluded_share:.1%} of the calls excluded (limit {settings.max_excluded_share:.1%})")
    if quality.mean_coverage is not None and quality.mean_coverage < settings.min_mean_coverage:
        found.append(f"mean coverage {quality.mean_coverage:.1%} (limit {settings.min_mean_coverage:.1%})")
    if quality.rejected_share is not None and quality.rejected_share > settings.max_rejected_share:
        found.append(f"{quality.rejected_share:.2%} of the candles rejected (limit {settings.max_rejected_share:.2%})")
    return found
