"""Names, notes and tags: the journal's promises under crashes, hands and several writers."""

import multiprocessing
from pathlib import Path

import pytest

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.runs.notes import JOURNAL, NOTES, RunNotes, name_run, note_run, read_notes, tag_run

A, B = ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b")


def test_the_last_word_counts_and_nothing_is_rewritten(tmp_path: Path) -> None:
    tag_run(tmp_path, A, ["slow", "v1"])
    before = (tmp_path / NOTES / JOURNAL).read_bytes()
    tag_run(tmp_path, A, ["v2"], ["v1"])
    note_run(tmp_path, A, "first")
    note_run(tmp_path, A, " second\nline ")
    name_run(tmp_path, A, "baseline")
    assert read_notes(tmp_path) == {A: RunNotes("baseline", "second\nline", ("slow", "v2"))}
    assert (tmp_path / NOTES / JOURNAL).read_bytes().startswith(before)
    name_run(tmp_path, A, None)
    note_run(tmp_path, A, "")
    tag_run(tmp_path, A, (), ["slow", "v2"])
    assert read_notes(tmp_path) == {}


def test_a_name_belongs_to_one_run(tmp_path: Path) -> None:
    (tmp_path / "2024-01" / f"run_id={A}").mkdir(parents=True)
    name_run(tmp_path, A, "best-try")
    name_run(tmp_path, A, "best-try")
    with pytest.raises(InputError, match=rf"best-try.*run {A} has it.*--move"):
        name_run(tmp_path, B, "best-try")
    name_run(tmp_path, B, "best-try", move=True)
    assert read_notes(tmp_path) == {B: RunNotes("best-try")}
    name_run(tmp_path, A, "best-try")  # B is no run of this home any more: its name is free
    assert read_notes(tmp_path) == {A: RunNotes("best-try")}


@pytest.mark.parametrize(
    "torn", [b'{"at": "2024', b'{"run_id": 3}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"null\n"]
)
def test_a_torn_line_costs_itself_alone(tmp_path: Path, torn: bytes) -> None:
    tag_run(tmp_path, A, ["kept"])
    with (tmp_path / NOTES / JOURNAL).open("ab") as journal:
        journal.write(torn)
    assert read_notes(tmp_path) == {A: RunNotes(tags=("kept",))}
    tag_run(tmp_path, A, ["later"])
    assert read_notes(tmp_path) == {A: RunNotes(tags=("kept", "later"))}


@pytest.mark.parametrize("word", ["", " ", "a b", "a,b", "-x", "é\x00", "x" * 65, A, "2024-01", "a\n"])
def test_what_is_no_name_is_refused_before_anything_is_written(tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match="at most 64"):
        name_run(tmp_path, A, word)
    with pytest.raises(InputError, match="at most 64"):
        tag_run(tmp_path, A, [word])
    assert read_notes(tmp_path) == {}


def _add(folder: Path, first: int) -> None:
    for n in range(first, first + 10):
        tag_run(folder, A, [f"t{n}"])


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add, args=(tmp_path, 10 * n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert set(read_notes(tmp_path)[A].tags) == {f"t{n}" for n in range(30)}
