import pytest

from graft.flows.labelling.apply import apply_labels
from graft.flows.labelling.choice import next_images
from graft.tasks.common.core.errors import DataError


def test_images_are_chosen_with_the_models_guess(pooled):
    asked = next_images(pooled.root, 6)
    assert len(asked.table) == 6
    assert set(asked.table["guess"]) <= {"blue", "green", "red"}
    assert "random" in set(asked.table["why"])
    assert all((pooled.root / path).is_file() for path in asked.table["path"])


def test_before_the_first_run_images_are_chosen_without_a_model(empty_project, pictures):
    from graft.flows.labelling.pool import add_to_pool

    add_to_pool(empty_project.root, pictures)
    asked = next_images(empty_project.root, 3)
    assert asked.strategy == "typical"
    assert set(asked.table["guess"]) == {""}


def test_what_was_answered_is_not_asked_again(pooled, tmp_path):
    first = next_images(pooled.root, 6).table
    first.assign(label="!unsure").to_csv(tmp_path / "a.csv", index=False)
    apply_labels(pooled.root, tmp_path / "a.csv")
    second = next_images(pooled.root, 100).table
    assert len(second) <= 30
    assert not set(first["image_id"]) & set(second["image_id"])


def test_an_empty_pool_is_an_error_that_says_what_to_do(project):
    with pytest.raises(DataError, match="graft label add"):
        next_images(project.root, 5)
