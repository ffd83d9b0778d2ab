"""The trained network with its preprocessing and probabilities: the source of every export."""

import torch
from torch import Tensor, nn

from edgetl.exporting.formats.torch_ood_score import OODScore
from edgetl.exporting.formats.torch_preprocess import Preprocess
from edgetl.runtime.bundle.model_card import ModelCard
from edgetl.runtime.bundle.tensor_names import ANSWERS, NORMALIZED, RESIZED, SCORES
from edgetl.training.models.ood_detector import OODDetector

OUTPUTS = (*ANSWERS, *SCORES)
"""What ``forward`` returns, in order; the last two only with a detector."""
STAGE_TENSORS = (RESIZED, NORMALIZED, *OUTPUTS)
"""What ``stages`` returns, likewise."""


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


class ScoredClassifier(DeployedClassifier):
    """From raw photos to probabilities, scores and embeddings; in eval mode.

    network  normalized float32 [N, 3, h, w] → logits float32 [N, classes], features float32
             [N, features]
    """

    def __init__(self, network: nn.Module, card: ModelCard, detector: OODDetector) -> None:
        super().__init__(network, card)
        self.ood_score = OODScore(detector)

    def forward(  # type: ignore[override]
        self, images: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 RGB [N, H, W, 3] → OUTPUTS: the score is float32 [N], the embedding [N, dims]."""
        logits, features = self.network(self.preprocess(images))
        score, embedding = self.ood_score(features, logits)
        return logits, torch.softmax(logits / self.temperature, dim=1), score, embedding

    @torch.jit.export
    def stages(  # type: ignore[override]
        self, images: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """uint8 RGB [N, H, W, 3] → STAGE_TENSORS."""
        resized = self.preprocess.resize(images)
        normalized = self.preprocess.normalize(resized)
        logits, features = self.network(normalized)
        score, embedding = self.ood_score(features, logits)
        probabilities = torch.softmax(logits / self.temperature, dim=1)
        return resized, normalized, logits, probabilities, score, embedding


def deployed(
    network: nn.Module, card: ModelCard, detector: OODDetector | None
) -> DeployedClassifier:
    """The classifier, with scores if there is a detector; ``network`` then also gives features."""
    if detector is None:
        return DeployedClassifier(network, card)
    return ScoredClassifier(network, card, detector)
