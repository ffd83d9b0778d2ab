"""The whole classifier as a torch.export program (.pt2), the successor of TorchScript.

torch.export records one path of operators for photos of every size, so this resize has no branch
and no loop: each axis is one product with all its weights, most of them 0. It gives the same bits,
but is slow on large photos.
"""

import io

import torch
from torch import Tensor, nn

from edgetl.errors import ExportError, first_line
from edgetl.exporting.formats.deployed_classifier import DeployedClassifier, deployed
from edgetl.exporting.formats.torch_preprocess import Preprocess
from edgetl.onnx_graph.tracing import quiet
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.models.ood_detector import OODDetector

EXAMPLE_SHAPE = (2, 50, 70, 3)  # of the photos recorded; all dimensions but the last are dynamic


class BranchFreePreprocess(Preprocess):
    """``Preprocess`` for a fixed output size, without a branch on the photo's size."""

    def resize(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → uint8 [N, h, w, 3]."""
        height, width = (
            torch.scalar_tensor(images.shape[axis], dtype=torch.float64) for axis in (1, 2)
        )
        if self.squash:
            targets = [torch.scalar_tensor(size, dtype=torch.float64) for size in self.size]
        else:
            short = torch.minimum(height, width)
            targets = [torch.trunc(self.size[0] * length / short) for length in (height, width)]
        counts = self.crop if self.crop[0] > 0 else self.size
        columns = self.resize_densely(images, width, targets[1], counts[1])
        rows = self.resize_densely(columns, height, targets[0], counts[0])
        return rows.permute(2, 0, 1, 3).contiguous()

    def resize_densely(self, pixels: Tensor, length: Tensor, target: Tensor, count: int) -> Tensor:
        """uint8 [a, b, length, 3] → uint8 [count, a, b, 3], the middle of ``target`` outputs.

        An axis of unchanged length is copied. ``length`` and ``target`` are float64 scalars.
        """
        rows = pixels.permute(2, 0, 1, 3)
        origin = torch.round((target - count) * 0.5)  # half to even
        centres = (torch.arange(count, dtype=torch.float64) + origin + 0.5) * (length / target)
        filter_scale = (length / target).clamp(min=1.0)
        support = (2.0 if self.bicubic else 1.0) * filter_scale
        first = (centres - support + 0.5).to(torch.int64).unsqueeze(1)
        after = (centres + support + 0.5).to(torch.int64).unsqueeze(1)
        taps = torch.arange(rows.shape[0], dtype=torch.int64).unsqueeze(0)
        offset = taps.to(torch.float64) - centres.unsqueeze(1) + 0.5
        values = self.filter((offset * (1.0 / filter_scale)).abs())
        weights = self.integer_weights(values * torch.logical_and(taps >= first, taps < after))
        sums = weights.to(pixels.device) @ rows.reshape(rows.shape[0], -1).to(torch.float64)
        return self.rounded(sums).reshape(count, pixels.shape[0], pixels.shape[1], 3)


def branch_free_classifier(
    network: nn.Module, card: ModelCard, detector: OODDetector | None = None
) -> DeployedClassifier:
    """The classifier that a program is recorded from.

    Raises ExportError if the preprocessing has no fixed output size, or if the network is a
    TorchScript program.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ExportError(
            "torch.export can't record a network that was imported as a TorchScript program.",
            "Leave out --format pt2.",
        )
    if card.spec.fixed_size is None:
        raise ExportError(
            "A torch.export program needs pictures of one size, "
            "which this model's preprocessing does not give.",
            "Leave out --format pt2.",
        )
    classifier = deployed(network, card, detector)
    classifier.preprocess = BranchFreePreprocess(card.spec)
    return classifier.eval()


def build_program(classifier: DeployedClassifier) -> bytes:
    """A file for ``torch.export.load``: images uint8 [N, H, W, 3] → what ``classifier`` returns.

    Raises ExportError if torch.export can't record the network.
    """
    dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    file = io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            example = torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8)
            program = torch.export.export(classifier, (example,), dynamic_shapes=(dynamic,))
            torch.export.save(program, file)
    except Exception as error:  # torch.export's errors share no base class
        raise ExportError(
            f"The network can't be written as a torch.export program: {first_line(error)}"
        ) from error
    return file.getvalue()
