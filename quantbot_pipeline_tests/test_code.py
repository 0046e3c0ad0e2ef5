"""What the code itself promises: nothing from outside is ever run as a program, and nobody else may write what the lab writes."""

import ast
import os
import re
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
ROOT = Path(quantbot_pipeline.__file__).parent
LONG_FILES = {"replay/kernel.py", "artifacts/invariants.py", "market/sample.py", "replay/statistics.py"}
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "skops"}


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


def test_only_launching_and_what_is_of_one_place_know_the_core_of_dagster() -> None:
    found = []
    for path in SOURCES:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*(from|import) dagster\._", line):
                name = path.relative_to(ROOT).as_posix()
                places = ("orchestration/launch.py", "orchestration/local/", "orchestration/cluster/")
                assert name.startswith(places), name
                reasons = [text for text in lines[max(0, number - 3) : number] if text.lstrip().startswith("#")]
                assert reasons or "#" in line, f"{name}:{number + 1}: say why"
                found.append(name)
    assert len(found) >= 3, "the search finds what it looks for"


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A compiled function may be long: a call inside it is not free everywhere."""
    return any(isinstance(decorator, ast.Name) and decorator.id == "_kernel" for decorator in node.decorator_list)


def test_functions_and_files_are_short() -> None:
    for path in SOURCES:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        assert text.count("\n") <= 400 or name in LONG_FILES, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{name}: {node.name}"


def test_the_places_that_the_architecture_page_names_exist() -> None:
    page = (ROOT.parent / "docs/architecture.md").read_text()
    places = [ROOT, ROOT.parent, *(path for path in ROOT.iterdir() if path.is_dir())]
    named = set(re.findall(r"`([\w/.]+(?:\.py|/))`", page))
    assert len(named) > 40
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


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


def test_what_the_formatter_must_leave_alone_has_a_reason() -> None:
    for path in [*SOURCES, *(ROOT.parent / "quantbot_pipeline_tests").rglob("*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if "# fmt: " + "skip" in line or "# fmt: " + "off" in line:
                assert re.search(r"fmt: \w+  # \w", line), f"{path}:{number}: say why"
