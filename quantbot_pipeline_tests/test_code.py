"""What the code itself promises: nothing from outside is ever run as a program, and nobody else may write what the lab writes."""

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantbot_pipeline
from quantbot_pipeline.backtest.month import run_month
from quantbot_pipeline.catalog.sync import sync
from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline_tests.support.builders import make_home, small_market

SOURCES = sorted(Path(quantbot_pipeline.__file__).parent.rglob("*.py"))
RUNS_DATA = {"eval", "exec", "compile", "__import__", "system", "popen"}
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if name in RUNS_DATA and not (name == "compile" and isinstance(owner, ast.Name) and owner.id == "re"):
                yield name
            if any(k.arg == "shell" or (k.arg == "allow_pickle") for k in node.keywords):
                yield f"{name}(shell or allow_pickle)"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLES)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLES:
            yield str(node.module)


def test_no_code_from_data() -> None:
    found = {path.name: list(offences(ast.parse(path.read_text()))) for path in SOURCES}
    assert len(found) > 50
    assert {name: what for name, what in found.items() if what} == {}
    bad = "import pickle\neval(x)\nrun(x, shell=True)\nre.compile(x)"
    assert len(list(offences(ast.parse(bad)))) == 3, "the search finds what it looks for"


@pytest.mark.parametrize(("mask", "forbidden"), [(0o022, 0o022), (0o077, 0o077)])
def test_files_are_made_with_the_users_mask(tmp_path: Path, mask: int, forbidden: int) -> None:
    before = os.umask(mask)
    try:
        lab = make_home(tmp_path / "home", *small_market())
        run_month(lab, "path-only", "2024-01", BacktestConfig())
        sync(lab.catalog)
    finally:
        os.umask(before)
    made = list((tmp_path / "home").rglob("*"))
    assert len(made) > 20
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made}
    assert not [path for path, mode in modes.items() if mode & forbidden]
    assert not [path for path, mode in modes.items() if path.is_file() and mode & 0o111], "no data is a program"
