"""The whole classifier as one TorchScript file, which runs where torch is but edgetl is not."""

from __future__ import annotations

import io

import torch
from torch import nn

from edgetl.errors import ExportError, first_line
from edgetl.exporting.formats.deployed_classifier import deployed
from edgetl.exporting.formats.onnx_network import example_input
from edgetl.onnx_graph.tracing import compile_network, quiet, trace
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.training.models.ood_detector import OODDetector

BATCH, OTHER_BATCH = 2, 3  # photos in the example traced, and in the one that checks the result


def build_torchscript(
    network: nn.Module, card: ModelCard, detector: OODDetector | None = None
) -> bytes:
    """A file for ``torch.jit.load`` with ``forward`` and ``stages`` of the deployed classifier.

    The preprocessing is compiled, since it depends on the photo's size. The network is traced, or
    compiled if its trace does not hold for another batch size. Raises ExportError if neither works.
    """
    example, other = example_input(card.spec, BATCH), example_input(card.spec, OTHER_BATCH)
    failure = Exception()
    for convert in (trace, compile_network):
        with quiet(), torch.no_grad():
            try:
                converted = convert(network, example)
                torch.testing.assert_close(converted(other), network(other))
                # Without gradients, or each answer would keep what they need.
                classifier = deployed(converted, card, detector).requires_grad_(False)
                file = io.BytesIO()
                torch.jit.save(torch.jit.script(classifier), file)
                return file.getvalue()
            except Exception as error:  # the compiler's errors share no base class
                failure = error
    raise ExportError(
        f"The network can't be written as TorchScript: {first_line(failure)}"
    ) from failure
