"""What a command loads: a short one must not wait for libraries that it does not use."""

import os
import subprocess
import sys
from pathlib import Path

# Runs commands one after the other in a fresh process each (forked) and prints which of the heavy modules each had loaded.
PROGRAM = """
import os, sys
from quantbot_pipeline.cli.main import main
for words in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        out = os.dup(1)
        os.dup2(null, 1)
        sys.argv = ["quantbot", *words.split("|")]
        try:
            main()
        except SystemExit as ended:
            heavy = ("dagster", "numba", "pandas", "pyarrow", "numpy", "duckdb", "pydantic", "filelock", "altair", "scipy")
            loaded = [name for name in heavy if name in sys.modules]
            os.write(out, f"{sys.argv[1:3]} {ended.code or 0} {' '.join(loaded)}\\n".encode())
        os._exit(0)
    os.wait()
"""


def test_short_commands_load_what_they_use(home: Path, quantbot: object) -> None:
    assert callable(quantbot)
    made = quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-01")
    assert made.status == 0
    quantbot("backtest", "catalog-sync")
    commands = ["--help", "backtest|catalog-query", "leaderboard", "query|SELECT 1"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *commands], capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['--help'] 0 ",
        "['backtest', 'catalog-query'] 0 duckdb pydantic",
        "['leaderboard'] 0 pyarrow numpy duckdb pydantic",
        "['query', 'SELECT 1'] 0 pyarrow numpy duckdb pydantic",
    ], done.stderr


def test_a_frame_is_had_after_a_command_that_hid_pandas() -> None:
    """pyarrow looks for pandas again when somebody asks for a frame, and then tells a Series from a list as ever."""
    program = """
import sys
from quantbot_pipeline.cli.lighter import arrow_without_pandas
arrow_without_pandas()
import pyarrow as pa
table = pa.table({"a": [1.0, None]})
assert "pandas" not in sys.modules
print(table.to_pandas()["a"].isna().sum(), pa.array(sys.modules["pandas"].Series([1.0, float("nan")])).null_count)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 1\n", "")


def test_openblas_starts_no_thread_unless_somebody_asks() -> None:
    program = "import os, quantbot_pipeline.cli.main as m; print(os.environ['OPENBLAS_NUM_THREADS'])"
    for given in ({}, {"OPENBLAS_NUM_THREADS": "3"}):
        env = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"} | given
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
        assert done.stdout == f"{given.get('OPENBLAS_NUM_THREADS', '1')}\n", done.stderr


def test_scipy_is_had_after_a_command_that_hid_it_from_kernels() -> None:
    program = """
import sys
from quantbot_pipeline.cli.lighter import kernels_without_scipy
kernels_without_scipy()
assert "scipy" not in sys.modules
from scipy.special import expit
print(expit(0.0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0.5\n", "")
