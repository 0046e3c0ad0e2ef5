"""A request to stop is noticed wherever it lands: in a query, in a destructor, in somebody else's handler."""

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import duckdb
import pytest

from quantbot_pipeline.interrupts import asked, noticed, put_off, stop_if_asked

SLOW_SQL = "SELECT sum(sin(i)) FROM range(100000000) t(i)"  # a second or two: at times DuckDB looks for signals at its end only


@pytest.fixture(autouse=True)
def ctrl_c_is_heeded() -> Iterator[None]:
    """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ask(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the handler runs at the latest here


def test_a_query_ends_with_the_request_and_not_with_an_error_of_its_own() -> None:
    timer = threading.Timer(0.2, ask)
    timer.start()
    with pytest.raises(KeyboardInterrupt), noticed(), duckdb.connect() as con:
        con.execute(SLOW_SQL)
    timer.join()


def test_what_takes_an_interrupted_query_for_a_failure_is_stopped_next() -> None:
    timer = threading.Timer(0.2, ask)
    timer.start()
    with noticed(), duckdb.connect() as con:
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            con.execute(SLOW_SQL)
        with pytest.raises(KeyboardInterrupt):
            stop_if_asked()
    timer.join()
    assert not asked(), "the request is over with the block"


class Resource:
    """Something whose destructor is interrupted."""

    def __del__(self) -> None:
        ask()


def test_a_request_that_a_destructor_swallows_is_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), noticed():
        held = Resource()
        del held
        time.sleep(10)
    assert capsys.readouterr().err == ""


def test_a_request_that_a_weak_reference_swallows_is_made_again() -> None:
    class Target:
        pass

    with pytest.raises(KeyboardInterrupt), noticed():
        target = Target()
        reference = weakref.ref(target, lambda _: ask())
        del target
        time.sleep(10)
    assert reference() is None


def test_a_request_that_a_c_library_prints_is_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), noticed():
        try:
            ask()
        except KeyboardInterrupt:
            sys.excepthook(*sys.exc_info())  # as PyErr_Print does
        time.sleep(10)
    assert capsys.readouterr().err == ""


def test_other_errors_of_destructors_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("a fault")

    with noticed():
        Broken()
    assert [str(error) for error in told] == ["a fault"]


def test_handlers_of_others_hide_nothing() -> None:
    with noticed():
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            ask(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert asked()
        with noticed(), pytest.raises(KeyboardInterrupt):
            stop_if_asked()


def test_other_signals_are_no_request() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with noticed():
        ask(signal.SIGUSR1)
        stop_if_asked()
    signal.signal(signal.SIGUSR1, before)


def test_an_error_after_a_request_is_the_request_and_before_one_is_itself() -> None:
    with pytest.raises(KeyboardInterrupt), noticed():
        try:
            ask()
        except KeyboardInterrupt:
            raise ValueError("made of it") from None
    with pytest.raises(ValueError, match="itself"), noticed():
        raise ValueError("itself")


def test_a_request_waits_for_what_must_not_be_cut() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with put_off():
            ask()
            done.append("without an ear")
        done.append("never")
    with noticed():
        with put_off():
            ask()
        done.append("with one")
        with pytest.raises(KeyboardInterrupt):
            stop_if_asked()
    assert done == ["without an ear", "with one"]


def test_all_is_as_before_afterwards_also_in_a_thread() -> None:
    state = (sys.unraisablehook, signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT))
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(3):
        with noticed(), put_off():
            pass
    seen: list[bool] = []

    def elsewhere() -> None:
        with noticed(), put_off():
            seen.append(asked())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)) == state
    assert signal.set_wakeup_fd(-1) == -1
    assert descriptors == (len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0)
