"""What a replay asks of the process that it runs in."""

import pyarrow as pa
import pytest

from quantbot_pipeline.backtest.replaying import _take_the_faster_allocator


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="this pyarrow was built without jemalloc")
@pytest.mark.parametrize(("chosen", "taken"), [(None, "jemalloc"), ("system", "system")])
def test_a_replay_decodes_with_jemalloc_unless_somebody_chose(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, taken: str
) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    if chosen is not None:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", chosen)
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        _take_the_faster_allocator()
        assert pa.default_memory_pool().backend_name == taken
    finally:
        pa.set_memory_pool(before)
