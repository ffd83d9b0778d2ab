"""A network cut in two gives the same bits as the whole, and None says where it can't be cut."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.multi_level import find_levels, with_levels
from edgetl.training.models.network_split import UpperNetwork, find_split


@pytest.fixture
def resnet() -> Backbone:
    torch.manual_seed(0)
    backbone = build("timm/test_resnet", 3, weights="none")
    backbone.module.to(memory_format=torch.channels_last)
    return backbone


@pytest.mark.parametrize("multi_level", [False, True])
@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_the_two_parts_give_the_bits_of_the_whole(resnet, multi_level, blocks):
    backbone = with_levels(resnet, find_levels(resnet)) if multi_level else resnet
    split = find_split(backbone, blocks)
    assert split is not None and split.first == backbone.blocks[-blocks][0]
    network = backbone.module.eval()
    images = torch.randn(3, 3, *backbone.size, generator=torch.Generator().manual_seed(1))
    images = images.contiguous(memory_format=torch.channels_last)
    activations = split.lower(network, images)
    assert activations.shape == (3, split.width)
    assert torch.equal(split.upper(network, activations), network(images))
    assert torch.equal(network(images), network(images))  # no hook is left that changes it


def test_looking_for_a_cut_changes_nothing(resnet):
    before = copy.deepcopy(resnet.module.state_dict())
    resnet.module.train()
    resnet.module.layer1.eval()
    modes = [module.training for module in resnet.module.modules()]
    assert find_split(resnet, 2) is not None
    assert modes == [module.training for module in resnet.module.modules()]
    assert not any(module._forward_pre_hooks for module in resnet.module.modules())
    after = resnet.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_upper_part_trains_the_network_itself(resnet):
    split = find_split(resnet, 2)
    network = resnet.module.eval()
    upper = UpperNetwork(network, split)
    activations = torch.randn(2, split.width)
    before = upper(activations)
    before.sum().backward()
    trained = {name for name, value in network.named_parameters() if value.grad is not None}
    blocks = tuple(path for block in resnet.blocks[-2:] for path in block)
    assert trained == {
        name for name, _ in network.named_parameters() if name.startswith((*blocks, *resnet.heads))
    }
    with torch.no_grad():
        network.get_submodule(resnet.head).bias += 1
    assert torch.allclose(upper(activations), before + 1, atol=1e-5)


class Shortcut(nn.Module):
    """The second block also takes what the first one gave; the third takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        first = self.one(images)
        second = F.relu(self.two(first))
        return self.head((self.three(second) + first).mean((2, 3)))


def test_what_more_than_one_tensor_crosses_is_not_cut(resnet):
    blocks = (("one",), ("two",), ("three",))
    backbone = Backbone("shortcut", Shortcut(), resnet.spec, ("head",), blocks)
    assert find_split(backbone, 1) is None  # the shortcut would be lost
    assert find_split(backbone, 2) is not None
    assert find_split(backbone, 3) is None  # there is nothing below
    assert find_split(resnet, len(resnet.blocks)) is None
