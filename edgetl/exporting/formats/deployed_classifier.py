"""The trained network with its preprocessing and probabilities: the source of every export."""

import torch
from torch import Tensor, nn

from edgetl.exporting.formats.torch_preprocess import Preprocess
from edgetl.runtime.bundle.model_card import ModelCard


class DeployedClassifier(nn.Module):
    """From raw photos to probabilities; in eval mode.

    network  normalized float32 [N, 3, h, w] → logits float32 [N, classes]
    """

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.preprocess = Preprocess(card.spec)
        self.network = network
        self.temperature = float(card.temperature)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 RGB [N, H, W, 3] → logits and probabilities, float32 [N, classes] each."""
        logits = self.network(self.preprocess(images))
        return logits, torch.softmax(logits / self.temperature, dim=1)

    @torch.jit.export
    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Resized uint8 [N, h, w, 3], normalized float32 [N, 3, h, w], logits, probabilities."""
        resized = self.preprocess.resize(images)
        normalized = self.preprocess.normalize(resized)
        logits = self.network(normalized)
        return resized, normalized, logits, torch.softmax(logits / self.temperature, dim=1)
