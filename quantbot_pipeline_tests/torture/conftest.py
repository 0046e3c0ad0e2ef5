"""The report of the campaign: one line per promise, printed after `make torture` and kept in torture-report.txt."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantbot_pipeline_tests.support.object_store import Store, moto_store
from quantbot_pipeline_tests.support.rados import missing, rados_store

REPORT = "torture-report.txt"
TALLY = "tally"

Tally = Callable[..., None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """`tally(promise, tried=…, detected=…, lost=…)`: what a test tried, how much of it was noticed and refused, and what broke
    the promise. The rest did no harm. The quick part counts nothing."""

    def count(promise: str, *, tried: int, detected: int, lost: int = 0) -> None:
        if request.node.get_closest_marker("torture"):
            server = getattr(request.node, "callspec", None) and request.node.callspec.params.get("object_store")
            where = f" ({server})" if server else ""
            request.node.user_properties.append((TALLY, [promise + where, tried, detected, lost]))

    return count


@pytest.fixture(scope="session", params=["moto", "rados"])
def object_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The campaign takes two servers: moto, and a RADOS Gateway, which is stricter."""
    if request.param == "moto":
        with moto_store() as store:
            yield store
        return
    if absent := missing():
        pytest.skip(f"no RADOS Gateway here: {', '.join(absent)} missing")
    folder = Path(tempfile.mkdtemp(prefix="rados-"))  # the path of a socket has 107 characters at most
    try:
        with rados_store(folder) as store:
            yield store
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = list(_rows(terminalreporter))
    if not rows:
        return
    width = max(len(promise) for promise, *_ in rows)
    lines = [f"{'promise':<{width}} {'tried':>7} {'detected':>9} {'lost':>5}"]
    lines += [f"{promise:<{width}} {tried:>7} {detected:>9} {lost:>5}" for promise, tried, detected, lost in rows]
    terminalreporter.section("torture: tried, detected, lost")
    terminalreporter.write_line("\n".join(lines))
    (Path(config.rootpath) / REPORT).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, int, int, int]]:
    """What the tests counted; the reports of xdist's workers arrive here too."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if report.when == "call":
                yield from (value for name, value in report.user_properties if name == TALLY)
