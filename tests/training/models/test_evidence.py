"""Evidence maps: their sums are the logits, for every kind of head that has them."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from helpers.pooled_network import PooledNetwork
from helpers.tiny_network import tiny_network
from torch import nn

from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import build
from edgetl.training.models.evidence import EvidenceNetwork, find_maps
from edgetl.training.models.multi_level import find_levels, with_levels

CLASSES = 3


def backbone(name: str, levels: bool = True) -> Backbone:
    torch.manual_seed(0)
    made = build(name, CLASSES, weights="none")
    made = with_levels(made, find_levels(made) if levels else ())
    made.module.eval()
    return made


def noise(made: Backbone, photos: int = 2) -> torch.Tensor:
    return torch.randn(photos, 3, *made.size, generator=torch.Generator().manual_seed(1))


def assert_sums_are_logits(network: nn.Module, levels: tuple, images: torch.Tensor) -> None:
    maps = find_maps(network, levels, images.shape[2:])
    assert maps is not None
    head = network.get_submodule(maps.head)
    nn.init.normal_(head.bias)
    with torch.no_grad():
        logits, evidence = EvidenceNetwork(network, maps)(images)
        torch.testing.assert_close(logits, network(images), rtol=0, atol=0)
    assert evidence.shape[:2] == (len(images), CLASSES) and evidence[0, 0].numel() > 1
    difference = evidence.double().sum((2, 3)) + head.bias - logits
    assert difference.abs().max() <= 1e-5 * logits.abs().max()


# Of 160 pixels the levels have 40, 20, 10 and 5 places a side; of 150: 38, 19, 10 and 5.
@pytest.mark.parametrize(("levels", "side"), [(False, 160), (True, 160), (True, 150)])
def test_the_sum_over_places_is_the_logit_without_its_bias(levels, side):
    made = backbone("timm/test_resnet", levels)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert_sums_are_logits(made.module, made.levels, images)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_a_network_does_before_the_mean_is_found(relu, channels_last):
    torch.manual_seed(0)
    network = PooledNetwork(relu=relu, channels_last=channels_last).eval()
    assert_sums_are_logits(network, (), torch.randn(2, 3, 20, 30))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "timm/test_vit", "timm/convnext_atto"])
def test_a_network_whose_logits_are_no_sums_over_places_has_none(name):
    made = backbone(name)
    assert find_maps(made.module, made.levels, made.size) is None


def test_a_map_of_one_place_says_nothing():
    made = backbone("timm/test_resnet")
    assert find_maps(made.module, made.levels, (32, 32)) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_program_has_none():
    network = torch.jit.trace(tiny_network(), torch.zeros(1, 3, 31, 32))
    assert find_maps(network, (), (31, 32)) is None


def test_captum_finds_the_same_map():
    """Of one map, Grad-CAM without its ReLU is the class activation map, divided by the places."""
    made = backbone("timm/test_resnet", levels=False)
    maps = find_maps(made.module, (), made.size)
    assert maps is not None
    images = noise(made)
    with torch.no_grad():
        _, evidence = EvidenceNetwork(made.module, maps)(images)
    grad_cam = LayerGradCam(made.module, made.module.get_submodule(maps.last))
    for label in range(CLASSES):
        expected = grad_cam.attribute(images, target=label)[:, 0]
        torch.testing.assert_close(evidence[:, label], expected, rtol=1e-4, atol=1e-6)


def test_a_finer_level_is_seen_where_it_is():
    """A head that reads only the finest level: its evidence is that level's map, summed up."""
    made = backbone("timm/test_resnet")
    maps = find_maps(made.module, made.levels, made.size)
    assert maps is not None
    head = made.module.get_submodule(made.head)
    path, channels = made.levels[0]
    own = head.in_features - sum(width for _, width in made.levels)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:, own : own + channels] = 1
        seen = []
        made.module.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[2]))
        _, evidence = EvidenceNetwork(made.module, maps)(noise(made))
    fine = seen[0].sum(1) / seen[0][0, 0].numel()
    side, places = fine.shape[-1], evidence.shape[-1]
    step = side // places
    summed = fine.unfold(1, step, step).unfold(2, step, step).sum((3, 4))
    torch.testing.assert_close(evidence[:, 0], summed)
