import pytest

from graft.tasks.finetune.auto_rules import plan
from graft.tasks.finetune.params import FinetuneParams


@pytest.mark.parametrize(
    ("images", "init", "epochs"),
    [
        (100, "pretrained", 50),
        (1_500, "pretrained", 10),
        (60_000, "pretrained", 4),
        (600, "scratch", 100),
        (10**6, "scratch", 15),
    ],
)
def test_epochs_go_by_the_number_of_images(images, init, epochs):
    assert plan(FinetuneParams(init=init), images).epochs == epochs


def test_what_is_given_is_taken():
    given = FinetuneParams(epochs=3, learning_rate=0.5, batch_norm="running", mixup=0.3, cutmix=0.4, ema=0.5, views=7)
    found = plan(given, 1000)
    assert (found.epochs, found.learning_rate, found.batch_norm) == (3, 0.5, "running")
    assert (found.mixup, found.cutmix, found.ema, found.views) == (0.3, 0.4, 0.5, 7)


def test_the_rate_grows_with_the_batch():
    adamw = [plan(FinetuneParams(batch_size=size), 1000).learning_rate for size in (32, 128)]
    sgd = [plan(FinetuneParams(batch_size=size, optimizer="sgd"), 1000).learning_rate for size in (32, 128)]
    assert adamw[1] == pytest.approx(2 * adamw[0])
    assert sgd[1] == pytest.approx(4 * sgd[0])


def test_rates_go_by_the_architecture():
    assert plan(FinetuneParams(), 1000).learning_rate == 1e-3
    assert plan(FinetuneParams(), 1000, "transformer").learning_rate == 1e-5
    assert plan(FinetuneParams(init="scratch"), 1000).learning_rate == 2e-3


def test_rates_are_tried_only_on_cached_maps_and_only_if_none_is_given():
    tried = plan(FinetuneParams(layers="last_stage"), 1000).tried_rates
    assert len(tried) == 4
    assert min(tried) < plan(FinetuneParams(), 1000).learning_rate < max(tried)
    for fixed in ({"layers": "all"}, {"init": "scratch"}, {"learning_rate": 1e-3}):
        assert plan(FinetuneParams(**fixed), 1000).tried_rates == ()


def test_a_short_training_is_a_part_of_the_whole_one():
    assert plan(FinetuneParams(epochs=8), 1000).trial_steps(10) == 16
    assert plan(FinetuneParams(epochs=8), 10**6).trial_steps(10**4) == 200
    assert plan(FinetuneParams(epochs=1), 10).trial_steps(1) == 1


def test_many_images_bring_rates_that_fall_faster_from_layer_to_layer():
    assert plan(FinetuneParams(), 19_999).layer_decay == 0.9
    assert plan(FinetuneParams(), 20_000).layer_decay == 0.85
    assert plan(FinetuneParams(layer_decay=0.5), 20_000).layer_decay == 0.5
    assert plan(FinetuneParams(init="scratch"), 20_000).layer_decay == 1.0


def test_mixing_is_for_many_images_or_from_scratch():
    assert (plan(FinetuneParams(), 1000).mixup, plan(FinetuneParams(), 50_000).mixup) == (0.0, 0.1)
    assert plan(FinetuneParams(init="scratch"), 1000).mixup > 0
    assert plan(FinetuneParams(init="scratch"), 50_000).cutmix > 0


def test_batch_norm_is_frozen_unless_from_scratch():
    assert plan(FinetuneParams(), 10**6).batch_norm == "frozen"
    assert plan(FinetuneParams(init="scratch"), 10).batch_norm == "running"


def test_the_average_is_over_about_an_epoch():
    assert plan(FinetuneParams(), 3200).ema == pytest.approx(1 - 1 / 100)
    assert plan(FinetuneParams(), 10).ema == 0.0


def test_there_is_a_view_an_epoch():
    assert plan(FinetuneParams(epochs=6), 100).views == 6


@pytest.mark.parametrize(("epochs", "patience"), [(4, 5), (12, 5), (40, 13)])
def test_patience_is_a_third_of_all_epochs(epochs, patience):
    assert plan(FinetuneParams(epochs=epochs), 1000).patience == patience
    assert plan(FinetuneParams(epochs=epochs, patience=7), 1000).patience == 7
