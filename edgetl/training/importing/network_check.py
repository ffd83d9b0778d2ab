"""What a network must do to be exported: the same logits for a photo, alone and among others."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgetl.errors import TrainingError, first_line
from edgetl.onnx_graph.tracing import compile_network, plain_attention, quiet, trace
from edgetl.runtime.images.spec import PreprocessSpec
from edgetl.system.message_text import counted
from edgetl.training.importing.foreign_file import wrong_number_of_labels

_PHOTOS = 5  # of noise
_TOLERANCE = 1e-3  # of the outputs, relative and absolute: rounding is a hundred times smaller
_SUM_TOLERANCE = 1e-4  # of probabilities
_SMALLEST = 1e-37  # probability whose logarithm is taken: float32 has no smaller normal numbers

_LOGITS = (
    "Wrap it in a module whose forward returns float32 logits of the shape [N, classes], "
    "such as network(x).logits."
)
_EVAL = "Call eval() on the network before it is traced or scripted, and save it again."


class LogProbabilities(nn.Module):
    """The logarithm of a network's probabilities, of which softmax gives the probabilities back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalized: Tensor) -> Tensor:
        """float32 [N, 3, h, w] → float32 [N, classes]."""
        probabilities: Tensor = self.network(normalized)
        return probabilities.clamp(min=_SMALLEST).log()


@torch.no_grad()
def with_logits(
    network: nn.Module, spec: PreprocessSpec, classes: int, source: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """``network``, which may end in a softmax, as one that gives logits; and what was decided.

    Raises TrainingError if it can't answer pictures of the spec's size, if its answers are not
    finite numbers of ``classes`` classes, or if they depend on chance or on the other photos of a
    batch.

    source  how messages name it
    """
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(_PHOTOS, 3, *spec.input_size, generator=generator)
    answers = _answers(network, pictures, source)
    if answers.shape[1] != classes:
        raise wrong_number_of_labels(source, answers.shape[1], classes)
    if not torch.isfinite(answers).all():
        raise TrainingError(f"{source} gives answers that are not finite numbers.")
    if not _close(_answers(network, pictures, source), answers):
        raise TrainingError(f"{source} gives one photo another answer each time.", _EVAL)
    alone = [_answers(network, picture[None], source) for picture in pictures]
    if not _close(torch.cat(alone), answers):
        raise TrainingError(
            f"The answers of {source} to a photo depend on the other photos of the batch.",
            f"It may have been saved in training mode. {_EVAL}",
        )
    sums = answers.sum(1)
    if (
        classes < 2
        or answers.min() < 0
        or not torch.allclose(sums, torch.ones_like(sums), atol=_SUM_TOLERANCE)
    ):
        return network, ()
    if answers.min() < _SMALLEST:
        raise TrainingError(
            f"{source} ends in a softmax that rounds probabilities to 0, which hides the logits.",
            "Save the network without the softmax.",
        )
    return LogProbabilities(network).eval(), (
        "The network ends in a softmax: the logarithm of its probabilities is taken as logits, "
        "which gives the same probabilities.",
    )


def as_program(network: nn.Module, spec: PreprocessSpec, source: str) -> torch.jit.ScriptModule:
    """``network`` (in eval mode) as TorchScript: traced, or compiled if its trace does not hold.

    Raises TrainingError if neither works.
    """
    if isinstance(network, torch.jit.ScriptModule):
        return network
    generator = torch.Generator().manual_seed(1)
    example, other = (
        torch.randn(photos, 3, *spec.input_size, generator=generator) for photos in (2, 3)
    )
    failure = Exception()
    for convert in (trace, compile_network):
        try:
            with quiet(), torch.no_grad(), plain_attention():
                program = convert(network, example)
                torch.testing.assert_close(program(other), network(other))
                return program
        except Exception as error:  # the compiler's errors share no base class
            failure = error
    raise TrainingError(
        f"{source} can't be written as TorchScript: {_reason(failure)}",
        "Its forward may only use what torch.jit.trace or torch.jit.script can record.",
    ) from failure


def own_copy(network: nn.Module) -> nn.Module:
    """A copy in eval mode, on the CPU, in float32; the caller's network stays as it is."""
    try:
        network = copy.deepcopy(network)
    except Exception as error:  # whatever an attribute raises
        raise TrainingError(f"The network can't be copied: {first_line(error)}") from error
    return network.cpu().float().eval()


def _answers(network: nn.Module, pictures: Tensor, source: str) -> Tensor:
    """float32 [N, outputs]; raises TrainingError for any other answer."""
    count, _, height, width = pictures.shape
    what = counted(count, "photo")
    try:
        with quiet():
            answers = network(pictures)
    except Exception as error:  # of another type in each library
        raise TrainingError(
            f"{source} can't answer {what} of {height}×{width} pixels: {_reason(error)}",
            "Name the size that it was trained with: --size, --crop.",
        ) from error
    if not isinstance(answers, Tensor):
        raise TrainingError(
            f"{source} returns {type(answers).__name__}, not one tensor of logits.", _LOGITS
        )
    if answers.ndim != 2 or len(answers) != count or answers.dtype != torch.float32:
        raise TrainingError(
            f"{source} answers {what} with {str(answers.dtype).removeprefix('torch.')} "
            f"{list(answers.shape)}, not with float32 [{count}, classes].",
            _LOGITS,
        )
    return answers


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def _reason(error: Exception) -> str:
    """What is wrong; TorchScript says it in the last line, after its stack."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines and "TorchScript" in str(error) else first_line(error)
