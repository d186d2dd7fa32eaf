import pytest
import timm
import torch
from torch import nn

from graft.tasks.finetune.batchnorm_folding import fold, unfold, unfolded

NAMES = ["test_efficientnet", "test_resnet"]


def build(name):
    """With statistics that are not those of new batch norms."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0).train()
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64) * 2 + 1)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_has_the_same_output_and_the_same_gradients(name):
    plain, folded = build(name), build(name)
    x = torch.randn(2, 3, 64, 64)
    assert fold(folded, x) > 3
    losses = [(model(x) ** 2).sum() for model in (plain, folded)]
    for one in losses:
        one.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-4)
    for (where, a), (_, b) in zip(plain.named_parameters(), folded.named_parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=2e-3, atol=1e-4 * a.grad.abs().max().item() + 1e-7), where


def test_folding_changes_no_parameter_and_no_buffer():
    model = build("test_efficientnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model, torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before)


def test_a_network_that_is_unfolded_is_as_it_was():
    model = build("test_efficientnet")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(x)
    fold(model, x)
    with unfolded(model), torch.inference_mode():
        assert torch.equal(model(x), expected)
    unfold(model)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_batch_norm_that_shares_its_input_is_not_folded_wrongly():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return (self.norm(y) * y).mean((2, 3))

    torch.manual_seed(0)
    model = Shared()
    model(torch.randn(8, 3, 8, 8) * 3 + 2)
    model.eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = model(x)
        assert fold(model, x) == 0
        assert torch.equal(model(x), expected)


def test_a_network_without_batch_norm_has_nothing_to_fold():
    model = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    assert fold(model, torch.randn(2, 3, 160, 160)) == 0
