"""How the benchmarks measure: CPU seconds of this process, repeated and interleaved, and the tables they print.

CPU time and not wall time, because other processes may be using the machine. They still disturb its caches and its clock: so
what is to be compared is measured in turns, and a median is taken.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every work, `repeats` times, one after the other in every round; the first, unmeasured round warms up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for counted in range(-1, repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            if counted >= 0:
                spent[name].append(time.process_time() - start)
    return spent


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def peak_memory_mb() -> float:
    """The most memory this process ever had resident, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def title(text: str) -> None:
    """Announce a section."""
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their head: the first column to the left, the rest to the right."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    for i, row in enumerate(texts):
        cells = [
            cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))
    sys.stdout.flush()


def rate(per_second: float) -> str:
    """Evaluations per CPU-second, readable."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.3g} {unit}"
    return f"{per_second:.3g}"
