"""The report of the campaign: one line per promise, printed after `make torture` and kept in torture-report.txt."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPORT = "torture-report.txt"
TALLY = "tally"

Tally = Callable[..., None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """`tally(promise, tried=…, detected=…, lost=…)`: what a test tried, how much of it was noticed and refused, and what broke
    the promise. The rest did no harm. The quick part counts nothing."""

    def count(promise: str, *, tried: int, detected: int, lost: int = 0) -> None:
        if request.node.get_closest_marker("torture"):
            request.node.user_properties.append((TALLY, [promise, tried, detected, lost]))

    return count


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
