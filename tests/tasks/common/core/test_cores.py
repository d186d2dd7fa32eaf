import math
import os

import pytest

from graft.tasks.common.core import cores as module
from graft.tasks.common.core.cores import cores, quota


def set_quota(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text)


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert quota(tmp_path, "/") == math.inf


@pytest.mark.parametrize(("text", "expected"), [("max 100000\n", math.inf), ("150000 100000\n", 1.5), ("", math.inf)])
def test_the_quota_is_that_of_the_process_own_group(tmp_path, text, expected):
    set_quota(tmp_path / "jobs" / "one", text)
    assert quota(tmp_path, "/jobs/one") == expected


def test_a_group_above_limits_those_below(tmp_path):
    set_quota(tmp_path / "jobs", "50000 100000")
    set_quota(tmp_path / "jobs" / "one", "200000 100000")
    assert quota(tmp_path, "/jobs/one") == 0.5


def test_a_quota_of_the_first_version_counts(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for share, expected in ((-1, math.inf), (250000, 2.5)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{share}\n")
        assert quota(tmp_path, "/") == expected


def test_a_group_outside_what_is_mounted_is_that_of_the_root(tmp_path):
    set_quota(tmp_path, "100000 100000")
    assert quota(tmp_path, "/../elsewhere") == 1.0


@pytest.mark.parametrize(("share", "expected"), [(0.2, 1), (1.2, 2), (1000.0, 3)])
def test_the_lesser_of_affinity_and_quota_counts(monkeypatch, share, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(module, "quota", lambda root, group: share)
    assert cores() == expected


def test_a_process_bound_to_one_processor_has_one_core():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
