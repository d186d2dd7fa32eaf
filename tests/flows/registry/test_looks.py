"""How often models were judged on the same test images."""

from __future__ import annotations

from hashlib import md5

from graft.flows.registry.ledger import Entry
from graft.flows.registry.looks import SAMPLE, earlier_looks, sampled


def keys(first: int, last: int) -> list[str]:
    return [md5(str(number).encode()).hexdigest() for number in range(first, last)]


def entry(version: str, judged: list[str]) -> Entry:
    found = sampled(judged)
    return Entry(
        id=version, at="", what="refused", model="graft", version=version, previous="", by="", why="",
        test_images=found.images, test_sample=found.sample,
    )  # fmt: skip


def test_a_sample_names_some_of_the_images_and_the_same_ones_each_time() -> None:
    found = sampled(keys(0, 500))
    assert (found.images, len(found.sample)) == (500, SAMPLE)
    assert sampled(keys(0, 500)[::-1]) == found
    assert sampled(keys(0, 3)).sample == sorted(key[:8] for key in keys(0, 3))


def test_looks_are_counted_while_most_of_the_images_are_the_same() -> None:
    kept = [entry("1", keys(0, 100)), entry("2", keys(0, 110)), entry("3", keys(900, 1000))]
    assert earlier_looks(kept, keys(0, 120), "9") == 2
    assert earlier_looks(kept, keys(0, 1000), "9") == 0, "they are a tenth of it"
    assert earlier_looks(kept, keys(890, 1000), "9") == 1


def test_a_version_that_is_judged_again_is_no_further_look() -> None:
    kept = [entry("1", keys(0, 100)), entry("1", keys(0, 100)), entry("2", keys(0, 100))]
    assert earlier_looks(kept, keys(0, 100), "2") == 1


def test_an_entry_that_does_not_name_its_test_images_does_not_count() -> None:
    assert earlier_looks([entry("1", [])], keys(0, 100), "2") == 0
