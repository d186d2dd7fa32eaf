import io
import json

import pytest

from graft.tasks.common.core import progress as module
from graft.tasks.common.core.progress import FAILURE, MARK, PROTOCOL, Progress, progress, say, say_failure


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


@pytest.fixture
def read(clock):
    """read(stream, total, seconds, images=1, times=1) -> a bar to which images were added so often, after a wait."""

    def make(stream, total, seconds, images=1, times=1):
        bar = Progress("reading", total, stream=stream)
        for _ in range(times):
            clock.now += seconds
            bar.add(images)
        return bar

    return make


@pytest.fixture(autouse=True)
def _for_people(monkeypatch):
    monkeypatch.delenv(PROTOCOL, raising=False)


def test_work_that_ends_at_once_says_nothing(read):
    stream = io.StringIO()
    read(stream, 10, seconds=0.1, times=10).close()
    assert stream.getvalue() == ""


def test_a_line_tells_what_is_done_how_fast_and_what_is_left(read):
    stream = io.StringIO()
    read(stream, 3000, seconds=10, images=1000)
    assert stream.getvalue() == "reading: 1,000 of 3,000 images, 100.0/s, 0:20 left\n"


def test_lines_off_a_terminal_come_at_most_every_five_seconds(read):
    stream = io.StringIO()
    read(stream, 100, seconds=1, times=20)
    assert len(stream.getvalue().splitlines()) == 4


def test_a_line_on_a_terminal_rewrites_itself(read):
    stream = Terminal()
    read(stream, 10, seconds=1)
    assert stream.getvalue().startswith("\r\x1b[K")
    assert "\n" not in stream.getvalue()


def test_the_last_line_on_a_terminal_ends_and_tells_the_whole_time(read):
    stream = Terminal()
    read(stream, 2, seconds=3700, images=2).close()
    assert stream.getvalue().endswith("1:01:40 in all\n")


def test_a_program_reads_one_json_object_a_line(read, monkeypatch):
    monkeypatch.setenv(PROTOCOL, "json")
    stream = Terminal()
    read(stream, 10, seconds=2, images=4)
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
