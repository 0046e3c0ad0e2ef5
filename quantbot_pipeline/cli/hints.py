"""Commands in sentences for people, spelled so that they can be pasted: the program as it was called, and the home.

Belongs here: how a command is spelled. Does not: which command is hinted at; that is in the sentence.
"""

import re
import shlex
import shutil
import sys
from pathlib import Path

_COMMAND = re.compile(r"`quantbot ([^`]+)`")
_home: Path | None = None  # of this command; None before it was opened, and where it need not be named


def remember_home(home: Path) -> None:
    """Let hints name this home, unless a command without `--home` would find it."""
    global _home
    from quantbot_pipeline.settings import Settings

    _home = None if home.resolve() == Settings().home.resolve() else home


def pasteable(text: str) -> str:
    """Return a sentence whose commands in backquotes work when they are pasted into this shell."""
    return _COMMAND.sub(lambda found: f"`{command(found[1])}`", text)


def command(arguments: str) -> str:
    """Return a command of this program with the home that this command was given."""
    home = "" if _home is None or "--home" in arguments else f" --home {shlex.quote(str(_home))}"
    return f"{program()} {arguments}{home}"


def program() -> str:
    """Return how this program is called from the current directory: `quantbot` where the shell finds this very one."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m quantbot_pipeline"
    found = shutil.which("quantbot")
    if not called.is_file() or (found is not None and Path(found).samefile(called)):
        return "quantbot"
    return shlex.quote(str(called))
