import pytest
import timm
import torch
from torch.nn import functional

from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.maps.form import Wanted
from graft.tasks.common.maps.network import MapNetwork

SHAPE = (3, 96, 160)


def create(backbone, wanted, shape=SHAPE, **options):
    torch.manual_seed(0)
    network = timm.create_model(backbone, pretrained=False, num_classes=0, **options).eval()
    return MapNetwork(network, backbone, wanted, shape).eval()


def pixels(images=2, shape=SHAPE):
    return torch.rand(images, *shape, generator=torch.Generator().manual_seed(1))


def maps_of(network, x_BCHW):
    with torch.inference_mode():
        return network(x_BCHW).numpy()


def stages_of(backbone, network, x_BCHW, *places):
    """What timm itself gives after these stages of the same network."""
    plain = timm.create_model(backbone, pretrained=False, num_classes=0).eval()
    plain.load_state_dict(network.network.state_dict())
    with torch.inference_mode():
        return plain.forward_intermediates(x_BCHW, indices=list(places), intermediates_only=True)


def rooted(maps_BCHW):
    return maps_BCHW.sign() * maps_BCHW.abs().sqrt()


def test_patches_are_smoothed_depths_side_by_side_the_last_of_them_rooted():
    network = create("test_efficientnet", Wanted("patches", channels=1000))
    found = network.form.patches(maps_of(network, pixels()))
    stages = stages_of("test_efficientnet", network, pixels(), 2, 3)
    fine, coarse = (functional.avg_pool2d(one, 3, 1, 1) for one in (stages[0], rooted(stages[1])))
    coarse = functional.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
    expected = torch.cat([fine, coarse], dim=1).flatten(2).transpose(1, 2).numpy()
    assert found.shape == (2, 12 * 20, 32 + 48)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_levels_of_a_pyramid_lie_one_after_the_other():
    network = create("test_efficientnet", Wanted("pyramid", channels=1000))
    found = network.form.split(maps_of(network, pixels()))
    expected = stages_of("test_efficientnet", network, pixels(), 1, 2, 3, 4)
    assert [level.shape for level in found] == [tuple(level.shape) for level in expected]
    assert found[1] == pytest.approx(expected[1].numpy(), rel=1e-4, abs=1e-5)


def test_each_depth_keeps_its_share_of_the_channels_and_its_distances():
    whole, less = (create("test_resnet", Wanted("patches", channels=channels)) for channels in (1000, 60))
    assert [part.channels for part in whole.form.parts] == [48, 192]
    assert [part.channels for part in less.form.parts] == [12, 48]
    maps = [network.form.patches(maps_of(network, pixels(8))) for network in (whole, less)]
    before, after = (((one[1:] - one[:-1]) ** 2).sum(axis=2).mean() for one in maps)
    assert after == pytest.approx(before, rel=0.2)


def test_projections_are_the_same_each_time():
    one, other = (create("test_resnet", Wanted("patches", channels=60)) for _ in range(2))
    assert (maps_of(one, pixels()) == maps_of(other, pixels())).all()


def test_a_pyramids_levels_are_projected_one_by_one():
    form = create("test_resnet", Wanted("pyramid", channels=60)).form
    assert [(level.channels, level.height, level.width) for level in form.levels] == [
        (32, 24, 40), (48, 12, 20), (60, 6, 10), (60, 3, 5)
    ]  # fmt: skip
    assert form.dimension == 32 * 960 + 48 * 240 + 60 * 60 + 60 * 15


def test_layers_behind_the_deepest_map_do_not_run():
    network = create("test_efficientnet", Wanted("patches", (4, 8)))
    network.network.blocks[3].register_forward_hook(lambda *_: pytest.fail("it ran"))
    assert [part.name for part in network.form.parts] == ["blocks.1", "blocks.2"]
    assert maps_of(network, pixels()).shape == (2, network.form.dimension)


def test_modules_can_be_named_in_any_order():
    network = create("test_efficientnet", Wanted("patches", ("blocks.3", "blocks.1.0")))
    assert [part.name for part in network.form.parts] == ["blocks.3", "blocks.1.0"]


def test_tokens_are_places_of_a_grid_without_the_class_token():
    network = create("test_vit", Wanted("patches", channels=1000), (3, 160, 160))
    found = network.form.patches(maps_of(network, pixels(shape=(3, 160, 160))))
    blocks = stages_of("test_vit", network, pixels(shape=(3, 160, 160)), 2, 3)
    smooth = [functional.avg_pool2d(one, 3, 1, 1).flatten(2).transpose(1, 2) for one in (blocks[0], rooted(blocks[1]))]
    assert [part.name for part in network.form.parts] == ["blocks.2", "blocks.3"]
    assert found == pytest.approx(torch.cat(smooth, dim=2).numpy(), rel=1e-3, abs=1e-4)


def test_blocks_of_a_transformer_are_named_by_their_numbers():
    network = create("test_vit", Wanted("patches", (0, 5)), (3, 160, 160))
    assert [part.name for part in network.form.parts] == ["blocks.0", "blocks.5"]


def test_tokens_of_an_input_that_is_not_square_have_its_proportions():
    (level,) = create("test_vit", Wanted("patches"), (3, 64, 384), img_size=(64, 384)).form.levels
    assert (level.height, level.width) == (4, 24)


def test_tokens_that_have_no_class_token_among_them_are_all_taken():
    (level,) = create("cait_xxs24_224", Wanted("patches"), (3, 224, 224), depth=4).form.levels
    assert (level.height, level.width) == (14, 14)


def test_strides_are_those_of_the_maps_where_timm_says_otherwise():
    network = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    for info in network.feature_info:
        info["reduction"] *= 2
    form = MapNetwork(network, "test_efficientnet", Wanted("patches", (8,)), SHAPE).form
    assert [part.name for part in form.parts] == ["blocks.2"]


def test_maps_with_channels_last_are_turned():
    network = create("test_mambaout", Wanted("patches", channels=1000))
    (level,) = network.form.levels
    assert (level.height, level.width, level.channels) == (12, 20, 32 + 48)


def test_tiles_are_seen_one_by_one_and_lie_as_in_the_picture():
    alone = create("test_efficientnet", Wanted("pyramid", (16,)))
    tiled = create("test_efficientnet", Wanted("pyramid", (16,), tiles=2))
    picture = pixels(shape=(3, 2 * 96, 2 * 160))
    (whole,) = tiled.form.split(maps_of(tiled, picture))
    (corner,) = alone.form.split(maps_of(alone, picture[:, :, 96:, :160]))
    assert whole.shape[2:] == (12, 20)
    assert whole[:, :, 6:, :10] == pytest.approx(corner, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("backbone", "depths", "words"),
    [
        ("test_efficientnet", (64,), "strides \\(2, 4, 8, 16, 32\\)"),
        ("test_efficientnet", ("blocks.9",), "blocks.9"),
        ("test_vit", (6,), "numbers of blocks \\(0, 1, 2, 3, 4, 5\\)"),
    ],
)
def test_a_depth_that_is_not_there_is_named(backbone, depths, words):
    with pytest.raises(ParamsError, match=words):
        create(backbone, Wanted("patches", depths), (3, 160, 160))


def test_a_module_whose_output_has_no_places_is_refused():
    with pytest.raises(ParamsError, match="gives no maps at global_pool"):
        create("test_efficientnet", Wanted("patches", ("global_pool",)))


def test_a_network_of_which_timm_says_nothing_is_walked():
    network = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    del network.feature_info
    form = MapNetwork(network, "test_efficientnet", Wanted("pyramid"), SHAPE).form
    assert [(level.height, level.width) for level in form.levels] == [(24, 40), (12, 20), (6, 10), (3, 5)]
