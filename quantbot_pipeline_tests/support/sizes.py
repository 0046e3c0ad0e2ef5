"""How often a case of the campaign is tried: a little in `make test`, all of it in `make torture`."""

from typing import Any

import pytest


def sizes(quick: Any, whole: Any) -> list[Any]:
    """Parameters of one test: a quick run of it, and the whole under the marker `torture`."""
    return [pytest.param(quick, id="quick"), pytest.param(whole, id="whole", marks=pytest.mark.torture)]
