import io
import json

import pytest

from tasks.common.core import progress as module
from tasks.common.core.progress import FAILURE, MARK, PROTOCOL, Progress, progress, say, say_failure


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves, so that none has to wait."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _for_people(monkeypatch):
    monkeypatch.delenv(PROTOCOL, raising=False)


def test_work_that_ends_at_once_says_nothing(clock):
    stream = io.StringIO()
    bar = Progress("reading", 10, stream=stream)
    for _ in range(10):
        clock.now += 0.1
        bar.add()
    bar.close()
    assert stream.getvalue() == ""


def test_a_line_tells_what_is_done_how_fast_and_what_is_left(clock):
    stream = io.StringIO()
    bar = Progress("reading", 3000, stream=stream)
    clock.now += 10
    bar.add(1000)
    assert stream.getvalue() == "reading: 1,000 of 3,000 images, 100.0/s, 0:20 left\n"


def test_lines_off_a_terminal_come_at_most_every_five_seconds(clock):
    stream = io.StringIO()
    bar = Progress("reading", 100, stream=stream)
    for _ in range(20):
        clock.now += 1
        bar.add()
    assert len(stream.getvalue().splitlines()) == 4


def test_a_line_on_a_terminal_rewrites_itself(clock):
    stream = Terminal()
    bar = Progress("reading", 10, stream=stream)
    clock.now += 1
    bar.add()
    assert stream.getvalue().startswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_the_last_line_on_a_terminal_ends_and_tells_the_whole_time(clock):
    stream = Terminal()
    bar = Progress("reading", 2, stream=stream)
    clock.now += 3700
    bar.add(2)
    bar.close()
    assert stream.getvalue().endswith("1:01:40 in all\n")


def test_a_program_reads_one_json_object_a_line(clock, monkeypatch):
    monkeypatch.setenv(PROTOCOL, "json")
    stream = Terminal()
    bar = Progress("reading", 10, stream=stream)
    clock.now += 2
    bar.add(4)
    line = stream.getvalue()
    assert line.startswith(MARK)
    assert json.loads(line.removeprefix(MARK)) == {"what": "reading", "done": 4, "total": 10, "rate": 2.0}


def test_the_line_ends_when_the_work_fails(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)

    def work():
        with progress("reading", 10) as bar:
            clock.now += 1
            bar.add()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert stream.getvalue().endswith("\n")


def test_what_is_said_goes_to_stderr(capsys):
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_failures_kind_is_told_to_a_program(capsys, monkeypatch):
    monkeypatch.setenv(PROTOCOL, "json")
    say_failure("io")
    assert capsys.readouterr().err == f"{FAILURE}io\n"


def test_a_failures_kind_is_not_told_to_a_person(capsys):
    say_failure("io")
    assert capsys.readouterr().err == ""
