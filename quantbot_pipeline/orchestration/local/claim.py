"""One `quantbot ui` on a home: two daemons on one instance launch runs twice.

The lock is the kernel's, so who is killed claims nothing. A file beside it says who holds it.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from quantbot_pipeline.durable import locked
from quantbot_pipeline.errors import StoreError

LOCK, HOLDER = ".quantbot-ui.lock", ".quantbot-ui.json"
SAY_S = 2.0  # between taking the lock and saying who has it


@contextlib.contextmanager
def claimed(folders: Iterable[Path], address: str) -> Iterator[None]:
    """Hold the folders (a home's data and its Dagster instance) as their one `quantbot ui`, at this address.

    Raises StoreError, which names the other one, while another process holds one of them.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted({folder.resolve() for folder in folders}):
            try:
                stack.enter_context(locked(folder / LOCK, 0))
            except StoreError as e:
                raise _refusal(folder, e) from None
            holder = folder / HOLDER
            holder.write_text(json.dumps({"pid": os.getpid(), "address": address}))
            stack.callback(holder.unlink, missing_ok=True)
        yield


def _refusal(folder: Path, error: StoreError) -> StoreError:
    """Name who holds the folder; if nobody says so, the lock's own error is the reason."""
    deadline = time.monotonic() + SAY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads((folder / HOLDER).read_text())
            with contextlib.suppress(PermissionError):  # somebody else's: it lives
                os.kill(said["pid"], 0)
            return StoreError(
                f"{folder}: `quantbot ui` runs on this home already (process {said['pid']}, {said['address']}); "
                "use or stop that one, or look on with --read-only"
            )
        time.sleep(0.1)
    return error
