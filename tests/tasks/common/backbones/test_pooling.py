"""The class token and the patch tokens of transformers, beside what timm pools."""

import pytest
import timm
import torch

from graft.tasks.common.backbones import network
from graft.tasks.common.backbones.graph import convert, read_graph
from graft.tasks.common.backbones.spec import Form
from graft.tasks.common.backbones.weights import WeightsSource
from graft.tasks.common.core.errors import ParamsError
from graft.tasks.common.engines.openvino import Engine
from graft.tasks.common.engines.torch import TorchEngine

VIT, REGISTERS, MEANS = "test_vit", "test_vit2", "test_vit3"
"""With a class token; without one, with a register, averaging its patches; with attention pooling and registers."""

RANDOM = WeightsSource("random", "seed 0")
SIZE = (64, 64)
"""Of images: the position embeddings are interpolated."""


def created(backbone, output):
    return network.create(backbone, RANDOM, Form(output, image_size=SIZE))


def pooled_by_timm(backbone, pool):
    """timm's own network with the same weights and another pooling."""
    whole = created(backbone, "pre_logits")
    whole.reset_classifier(0, global_pool=pool)
    return whole.eval()


def images(count=3):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("output", "pool"), [("class_token", "token"), ("patch_mean", "avg")])
def test_a_pooling_is_timms(output, pool):
    with torch.inference_mode():
        found = created(VIT, output)(images())
        torch.testing.assert_close(found, pooled_by_timm(VIT, pool)(images()), rtol=1e-5, atol=1e-6)


def test_both_are_the_class_token_and_then_the_mean_of_the_patches():
    with torch.inference_mode():
        both, token, mean = (
            created(VIT, output)(images()) for output in ("class_and_patch_mean", "class_token", "patch_mean")
        )
    assert torch.equal(both, torch.cat([token, mean], dim=1))


def test_registers_take_no_part_in_the_mean_and_what_is_pooled_is_normalised_as_timm_does():
    assert created(REGISTERS, "pre_logits").num_prefix_tokens
    with torch.inference_mode():
        found = created(REGISTERS, "patch_mean")(images())
        torch.testing.assert_close(found, pooled_by_timm(REGISTERS, "avg")(images()), rtol=1e-5, atol=1e-6)


def test_registers_beside_a_class_token_take_no_part_in_the_mean():
    torch.manual_seed(0)
    vit = timm.create_model(VIT, img_size=SIZE, reg_tokens=4, num_classes=0).eval()
    pooled = network.pooled(vit, VIT, "class_and_patch_mean", (3, *SIZE))
    with torch.inference_mode():
        tokens_BTD = vit.forward_features(images())
        assert torch.equal(pooled(images()), torch.cat([tokens_BTD[:, 0], tokens_BTD[:, 5:].mean(1)], dim=1))


def test_layers_that_only_another_pooling_needs_are_left_out():
    tokens, whole = created(MEANS, "patch_mean"), created(MEANS, "pre_logits")
    assert isinstance(tokens.network.attn_pool, torch.nn.Identity)
    count = network.spec_of(tokens, MEANS, RANDOM, Form("patch_mean", image_size=SIZE)).parameters
    assert count == sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in whole_attention(MEANS))


def whole_attention(backbone):
    return created(backbone, "pre_logits").attn_pool.parameters()


@pytest.mark.parametrize("mixed", [False, True], ids=["fixed", "learned"])
def test_a_rotary_embedding_which_is_not_called_as_a_layer_is_kept(mixed):
    torch.manual_seed(0)
    small = {"img_size": 64, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 3}
    eva = timm.models.eva.Eva(**small, use_rot_pos_emb=True, rope_type="mixed" if mixed else "cat").eval()
    with torch.inference_mode():
        expected = eva.forward_features(images())[:, 0]
    pooled = network.pooled(eva, "eva", "class_token", (3, *SIZE))
    with torch.inference_mode():
        assert torch.equal(pooled(images()), eva.fc_norm(expected))


@pytest.mark.parametrize("output", ["class_token", "class_and_patch_mean"])
@pytest.mark.parametrize("backbone", [REGISTERS, MEANS])
def test_a_network_without_a_class_token_has_none_to_give(backbone, output):
    with pytest.raises(ParamsError, match=f"needs a class token, which {backbone} does not have") as refused:
        created(backbone, output)
    assert "patch_mean" in refused.value.allowed


@pytest.mark.parametrize("output", ["class_token", "patch_mean", "class_and_patch_mean"])
def test_a_network_without_tokens_has_none_to_pool(output):
    with pytest.raises(ParamsError, match="needs tokens, which test_efficientnet does not have"):
        created("test_efficientnet", output)


def test_pooled_names_the_mean_of_the_patches_for_a_transformer():
    with pytest.raises(ParamsError) as refused:
        created(VIT, "pooled")
    assert "patch_mean" in refused.value.todo


@pytest.mark.parametrize(("backbone", "output"), [(VIT, "class_and_patch_mean"), (REGISTERS, "patch_mean")])
def test_both_engines_compute_the_features_of_the_network(tmp_path, backbone, output):
    form = Form(output, image_size=SIZE)
    model = created(backbone, output)
    spec = network.spec_of(model, backbone, RANDOM, form)
    convert(model, spec, tmp_path)
    pixels = torch.randint(0, 256, (2, *SIZE, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8).numpy()
    mean, std = (255 * torch.tensor(values) for values in (spec.transform.mean, spec.transform.std))
    with torch.inference_mode():
        expected = model(((torch.from_numpy(pixels).float() - mean) / std).permute(0, 3, 1, 2)).numpy()
    assert expected.shape == (2, spec.dimension)
    graph = read_graph(tmp_path)
    for found in (Engine(graph.xml, "f32")(pixels), TorchEngine(model, spec.transform, "cpu")(pixels)):
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)
