"""Our DuckDB files in older clients, each in an environment of its own: what DBeaver, Metabase and distributions hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from quantbot_pipeline_tests.conftest import Quantbot

pytestmark = pytest.mark.torture

READS = """
import sys, duckdb
con = duckdb.connect(sys.argv[1], read_only=True)
print(duckdb.__version__, [con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in sys.argv[2:]])
"""


@pytest.mark.parametrize("version", ["1.1.3", "1.3.2", "1.5.6"])
def test_an_older_client_reads_our_files(home: Path, quantbot: Quantbot, tmp_path: Path, version: str) -> None:
    environment = str(tmp_path / "environment")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    install = [
        f"{environment}/bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
        f"duckdb=={version}",
    ]
    if subprocess.run(install).returncode:
        pytest.skip(f"no package of DuckDB {version} for this Python")
    assert quantbot("backtest", "path-only", "--from", "2024-01", "--to", "2024-01").status == 0
    assert quantbot("backtest", "catalog-sync").status == 0
    for file, names in (
        ("alerts.duckdb", ["alerts"]),
        ("backtest_catalog.duckdb", ["backtest_runs_catalog", "latest_runs", "paths", "trades"]),
    ):
        done = subprocess.run(
            [f"{environment}/bin/python", "-c", READS, str(home / "data" / file), *names],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(version)
        assert not done.stdout.startswith(f"{version} [0")
