"""The compiled kernels and numba's cache of them on the disk: that every one loads its own machine code, and that it says so.

numba names a cache entry after the module, the qualified name and the line of the Python function. Two dispatchers made of
one function would share a name and load each other's code.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

import quantbot_pipeline
from quantbot_pipeline.replay import capital, kernel, results, statistics
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.search import frontier

MODULES = (kernel, statistics, capital, frontier)

# Replays, aggregates and keeps a digest of every bit, how many kernels came from the cache, and how many were compiled.
PROGRAM = """
import hashlib
import numpy as np
from quantbot_pipeline.replay import kernel, results, statistics
from quantbot_pipeline.replay.compile import compile_policies
from quantbot_pipeline.replay.policies import DEFAULT_POLICIES, parse_policy

rng = np.random.default_rng(1)
close = np.cumprod(1 + rng.normal(0, 0.02, 500))
open_ = np.r_[1.0, close[:-1]]
ts = 300_000 * np.arange(500)
candles = results.Candles(ts, open_, np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99, close)
calls = 20
truth, outcomes = results.empty_truth(calls), results.empty_outcomes(calls, len(DEFAULT_POLICIES))
exits = kernel.replay(
    candles, 3_000_000 * np.arange(calls), np.zeros(calls, np.int64), np.full(calls, 500), np.arange(calls), results.Rules(),
    compile_policies([parse_policy(p) for p in DEFAULT_POLICIES]), truth, outcomes,
)
outcomes = results.with_exits(outcomes, [(np.arange(calls), exits)])
stats = statistics.aggregate(truth, outcomes, np.arange(calls), np.array([calls]), 0.004)
digest = hashlib.sha256(b"".join(array.tobytes() for array in (*truth, *outcomes[:3], *outcomes.exits, stats))).hexdigest()
entries = [kernel._replay_calls.stats, statistics._aggregate.stats]
hits, misses = sum(sum(s.cache_hits.values()) for s in entries), sum(sum(s.cache_misses.values()) for s in entries)
"""


def dispatchers() -> list[CPUDispatcher]:
    """Every compiled function of the package's pure half."""
    found = {
        id(value): value for module in MODULES for value in vars(module).values() if isinstance(value, CPUDispatcher)
    }
    return list(found.values())


def test_no_two_kernels_are_made_of_one_function() -> None:
    made_of = Counter(
        (d.py_func.__module__, d.py_func.__qualname__, d.py_func.__code__.co_firstlineno) for d in dispatchers()
    )
    assert len(made_of) > 15
    assert [name for name, count in made_of.items() if count > 1] == []
    assert len({id(d.py_func) for d in dispatchers()}) == len(dispatchers())


def test_code_from_the_cache_gives_the_same_bits() -> None:
    """This process compiles what no process before it has; another one loads it and compiles nothing."""
    here: dict[str, object] = {}
    exec(PROGRAM, here)
    shown = "print(digest, hits, misses, kernel.must_compile())"
    done = subprocess.run([sys.executable, "-c", PROGRAM + shown], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [here["digest"], "2", "0", "False"]


@pytest.mark.parametrize("readonly", [True, False])
def test_read_only_candles_are_no_second_specialisation(readonly: bool) -> None:
    """Decoded Parquet cannot be written to, arrays of a caller can: one compiled version serves both."""
    kernel.warm_up()
    before = len(kernel._replay_calls.signatures)
    candles = results.Candles(np.arange(3) * 60_000, *(np.ones(3) for _ in range(4)))
    for array in candles:
        array.flags.writeable = not readonly
    none = np.empty(0, np.int64)
    kernel.replay(
        candles, none, none, none, none, results.Rules(), compile_policies([]), results.empty_truth(0), results.empty_outcomes(0, 0)
    )  # fmt: skip  # a table: what belongs together stands on one line
    assert len(kernel._replay_calls.signatures) == before == 1


# Aggregates two trades, of which one ends with the data: the stop-out rate, the stressed mean, loads and compilations.
AGGREGATION = """
import numpy as np
from quantbot_pipeline.replay import kernel, results, statistics

foretold = kernel.must_compile()
truth, outcomes = results.empty_truth(2), results.empty_outcomes(2, 1)
truth.status[:], truth.p0[:], truth.entry_ts[:], truth.peak[:] = 0, 1.0, 0, 1.1
exits = results.Exits(np.array([1, 1]), np.array([0.5, 1.5]), np.array([1, 7], np.uint8), np.ones(2, np.uint16), np.array([-5000.0, 0.0]))
outcomes.distinct[:] = 1
outcomes = outcomes._replace(first=np.arange(2), exits=exits)
stats = statistics.aggregate(truth, outcomes, np.arange(2), np.array([2]), 0.0, stats=10)[0, 0]
assert foretold
found = statistics._aggregate.stats
print(stats[2], stats[6], sum(found.cache_hits.values()), sum(found.cache_misses.values()))
"""


@pytest.mark.torture
def test_machine_code_of_other_sources_is_not_used(tmp_path: Path) -> None:
    """Kernels of one file use exit codes that another file defines: numba itself would not see them change."""
    package = tmp_path / "code" / "quantbot_pipeline"
    shutil.copytree(Path(quantbot_pipeline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(package.parent)}

    def start() -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", AGGREGATION], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )  # fmt: skip  # a table: what belongs together stands on one line
        return [float(word) for word in done.stdout.split()]

    assert start() == [0.5, -7500.0, 0, 1]
    assert start() == [0.5, -7500.0, 1, 0], "unchanged sources: what was kept is loaded"
    source = package / "vocabulary.py"
    old = "TIME_STOP, STOP_LOSS, HARD_STOP, TRAILING, TAKE_PROFIT, LADDER, HORIZON, DATA_END = range(8)"
    new = "STOP_LOSS, TIME_STOP, DATA_END, TRAILING, TAKE_PROFIT, LADDER, HORIZON, HARD_STOP = range(8)"
    assert source.read_text().count(old) == 1
    source.write_text(source.read_text().replace(old, new))
    assert start() == [0.0, 0.0, 0, 1], "code 1 is no stop any more, and code 7 is not the end of the data"
