"""Texts that depend on code alone: made once for all processes, and made again when they were damaged."""

from pathlib import Path

from quantbot_pipeline.machine_cache import cache_folder, kept_text


def test_a_text_is_made_once_and_again_when_it_was_damaged(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "a\r\nb\n\n\u2028c"

    folder = cache_folder("texts", "x", str(tmp_path))
    assert folder == tmp_path / "texts-x"
    assert [kept_text(folder, "t", make) for _ in range(3)] == ["a\r\nb\n\n\u2028c"] * 3
    assert len(made) == 1
    for damage in (b"", b"a", (folder / "t").read_bytes()[:-1], (folder / "t").read_bytes() + b"x", b"\xff\xfe"):
        before = len(made)
        (folder / "t").write_bytes(damage)
        assert kept_text(folder, "t", make) == "a\r\nb\n\n\u2028c"
        assert len(made) == before + 1
    assert [path.name for path in folder.iterdir()] == ["t"], "nothing half-written stays"


def test_where_nothing_can_be_written_it_is_made_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cache_folder("texts", "x", str(tmp_path / "file")) is None
    assert kept_text(None, "t", lambda: "made") == "made"
    assert kept_text(tmp_path / "gone", "t", lambda: "made") == "made"
