from types import SimpleNamespace

import pytest

from graft.flows.lineage.uses import fitted_splits


def execution(**tags):
    """An execution whose head was refitted, and whose fine-tuning has these tags."""
    run = {
        "head": SimpleNamespace(data=SimpleNamespace(params={"head.refit": "True"}, tags={})),
        "finetune": SimpleNamespace(data=SimpleNamespace(params={}, tags=tags)),
    }
    return SimpleNamespace(stages=run)


@pytest.mark.parametrize(
    ("candidate", "tags", "expected"),
    [("head", {}, True), ("finetune", {"refitted": "True"}, True), ("finetune", {"refitted": "False"}, False)],
)
def test_a_version_has_learned_validation_images_if_its_own_candidate_was_refitted(candidate, tags, expected):
    version = SimpleNamespace(tags={"candidate": candidate})
    assert ("val" in fitted_splits(version, execution(**tags))) == expected
