import pytest

from graft.tasks.common.images.unreadable import Refused
from graft.tasks.preprocess.check import Look, look
from graft.tasks.preprocess.check_cache import Memory


class Looking:
    """Looks, and counts."""

    def __init__(self):
        self.files = []

    def __call__(self, md5, path):
        self.files.append(path.name)
        return look(path)


@pytest.fixture
def files(tmp_path, noise):
    """A stand-in for a hash -> a file."""
    for n in range(20):
        noise(20 + n, 30, seed=n).save(tmp_path / f"{n}.png")
    return {f"{n:032}": tmp_path / f"{n}.png" for n in range(20)}


def seen(md5, path):
    return look(path)


def part(files, begin, end):
    return dict(list(files.items())[begin:end])


def test_each_file_gets_its_own_look(files, tmp_path):
    looks = Memory(tmp_path / "memory").looks(files, seen)
    assert [looks[md5].width for md5 in files] == list(range(20, 40))


def test_what_was_seen_once_is_not_decoded_again(files, tmp_path):
    first = Memory(tmp_path / "memory").looks(part(files, 0, 15), seen)
    looking = Looking()
    again = Memory(tmp_path / "memory").looks(files, looking)
    assert sorted(looking.files) == sorted(f"{n}.png" for n in range(15, 20))
    assert first.items() <= again.items()


def test_a_fault_is_remembered_too(tmp_path):
    (tmp_path / "a.png").write_text("text")
    files = {"0" * 32: tmp_path / "a.png"}
    assert Memory(tmp_path / "memory").looks(files, seen)["0" * 32] == Look("not an image")
    looking = Looking()
    assert Memory(tmp_path / "memory").looks(files, looking)["0" * 32].fault == "not an image"
    assert looking.files == []


def test_a_file_that_cannot_be_read_is_not_remembered(files, tmp_path):
    absent = {"f" * 32: tmp_path / "gone.png"}
    assert isinstance(Memory(tmp_path / "memory").looks(absent, seen)["f" * 32], OSError)
    files["3".zfill(32)].rename(tmp_path / "gone.png")
    assert Memory(tmp_path / "memory").looks(absent, seen)["f" * 32].width == 23


def test_what_was_seen_before_a_failure_is_kept(files, tmp_path):
    def fail_at_the_end(md5, path):
        if path.name == "19.png":
            raise LookupError
        return look(path)

    with pytest.raises(LookupError):
        Memory(tmp_path / "memory").looks(files, fail_at_the_end)
    looking = Looking()
    Memory(tmp_path / "memory").looks(files, looking)
    assert looking.files == ["19.png"]


@pytest.mark.parametrize("place", [2, 100, 300, -10])
def test_a_damaged_memory_is_named_and_everything_looked_at_again(files, tmp_path, capsys, place):
    expected = Memory(tmp_path / "memory").looks(files, seen)
    (file,) = (tmp_path / "memory").rglob("*.parquet")
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)
    assert Memory(tmp_path / "memory").looks(files, seen) == expected
    assert file.name in capsys.readouterr().err


def test_another_version_of_the_check_remembers_nothing(files, tmp_path, monkeypatch):
    Memory(tmp_path / "memory").looks(files, seen)
    monkeypatch.setattr("graft.tasks.preprocess.check_cache.CHECK", 99)
    looking = Looking()
    Memory(tmp_path / "memory").looks(files, looking)
    assert len(looking.files) == 20


def test_what_a_file_is_as_grey_is_not_what_it_is_in_colour(tmp_path, files):
    colour = Memory(tmp_path / "memory", 3).looks(files, seen)
    grey = Memory(tmp_path / "memory", 1).looks(files, lambda md5, path: look(path, 1))
    assert all(grey[md5].pixels != colour[md5].pixels for md5 in files)


def test_a_refusal_keeps_nothing_of_the_image_in_memory(files, tmp_path):
    def refused(md5, path):
        try:
            raise EOFError
        except EOFError as error:
            raise Refused("too slow") from error

    (kept, *_) = Memory(tmp_path / "memory").looks(files, refused).values()

    assert (str(kept), kept.__traceback__, kept.__cause__, kept.__context__) == ("too slow", None, None, None)
