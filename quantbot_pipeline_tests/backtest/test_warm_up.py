"""`quantbot warm-up`: after it no run of any kind compiles anything."""

import subprocess
import sys
from pathlib import Path

# Prints the kernels that runs had to specialise for types that the warm-up does not know.
PROGRAM = """
import sys
from numba.core.registry import CPUDispatcher
from quantbot_pipeline.backtest.warm_up import warm_up
from quantbot_pipeline.cli.main import main

def forms():
    modules = [m for name, m in sys.modules.items() if name.startswith("quantbot_pipeline.")]
    kernels = {k.py_func.__qualname__: k for m in modules for k in vars(m).values() if isinstance(k, CPUDispatcher)}
    return {(name, form) for name, k in kernels.items() for form in k.signatures}

warm_up()
before = forms()
for words in (["backfill"], ["backtest", "policy", "--both-orders"]):
    sys.argv = ["quantbot", *words, "--from", "2024-01", "--to", "2024-02", "--format", "json"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
print(len(before), sorted({name for name, _ in forms() - before}))
"""


def test_runs_of_every_kind_compile_nothing_after_it(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    count, compiled = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(count) > 10
    assert compiled == "[]"
