"""`python -m benchmarks [section …]`: every section in a process of its own, so that memory and CPU are its own."""

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

SECTIONS = {
    "sub_grid": "the engine, plain loops and vectorbt on 15 stops x 12 take profits",
    "engine": "500 mixed policies, and the aggregation of their outcomes",
    "end_to_end": "committed runs against decoding their candles alone",
    "coarse": "results on 5m candles against those on the 1m candles they are made of",
    "dashboard": "the page of the sample market, and of 500 callers with 50,000 calls",
    "catalog": "ten thousand runs indexed and queried; MLflow, if installed",
    "crowd": "a million calls of a thousand callers through ingest, truth and policies",
    "growth": "CPU and memory while calls, callers, months, tokens or runs grow, one at a time",
    "evidence": "false claims, claimed shares, and what a judgement and a backfill of it cost",
    "models": "features, models, anomalies and a score (`--months 24 --calls 20000` for the sizes of docs/models.md)",
    "commands": "backfills, demo, reports and queries as whole processes, against an earlier state (`--before COMMIT`)",
    "backfill": "24 or more months launched in the UI as one Dagster run, and the same work without Dagster",
}
QUICK = ["sub_grid", "engine", "end_to_end"]  # about a minute together; the others take several each


def main() -> int:
    """Run the chosen sections one after the other; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", default=QUICK, help=f"of {', '.join(SECTIONS)}; or all; default: {' '.join(QUICK)}"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of which the median is taken (5)")
    parser.add_argument("--calls", type=int, default=10_000, help="calls of the big runs (10000)")
    parser.add_argument("--candles-per-call", dest="candles", type=int, default=2_880, help="window length (2880)")
    parser.add_argument("--policies", type=int, default=500, help="policies of the search (500)")
    parser.add_argument("--home", type=Path, help="coarse: a home with 1m candles")
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the catalog (10000)")
    parser.add_argument("--crowd", type=int, default=1_000_000, help="calls of the crowd (1000000)")
    parser.add_argument("--searched", type=int, default=50_000, help="of them through the search too (50000)")
    parser.add_argument(
        "--months", type=int, default=24, help="months of the backfill, half-years of a sample market (24)"
    )
    parser.add_argument(
        "--worlds",
        type=int,
        default=1,
        help="evidence: worlds of each kind; more than 2 measure everything, for hours (1)",
    )
    parser.add_argument("--grow", action="store_true", help="growth: the largest sizes too, for hours")
    parser.add_argument("--before", metavar="COMMIT", help="commands: the state to compare with (default: none)")
    parser.add_argument("--inline", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sections == ["all"]:
        options.sections = list(SECTIONS)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if options.inline:
        import_module(f"benchmarks.{options.sections[0]}").run(options)
        return 0
    start = time.monotonic()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numba", "numpy", "pyarrow"))
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}; CPU seconds, medians of {options.repeats}"
    )
    given = [argument for argument in sys.argv[1:] if argument not in {"all", *options.sections}]
    failed = [
        name
        for name in options.sections
        if subprocess.run([sys.executable, "-m", "benchmarks", name, "--inline", *given], check=False).returncode
    ]
    print(f"\n{time.monotonic() - start:.0f} s in all{', FAILED: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
