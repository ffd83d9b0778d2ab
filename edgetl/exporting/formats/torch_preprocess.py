"""The preprocessing contract as a scriptable torch module, bit for bit.

Weights are computed on the CPU, whatever the photos' device: they are few, and every CPU rounds
doubles alike. The products are sums of integers below 2^53 in float64, so they are exact in any
order, on any device, under autocast, and with TF32 allowed.
"""

from typing import Final

import torch
from torch import Tensor, nn

from edgetl.runtime.images.spec import PreprocessSpec


class Preprocess(nn.Module):
    """uint8 photos of any size → the network's input, as ``spec`` says. Scriptable."""

    # Class constants, since TorchScript sees no globals.
    one: Final[float] = 2.0**22  # a weight of 1, as an integer with 22 fractional bits
    # Outputs that share one product; their taps overlap, so that their common window is hardly
    # longer than that of one.
    block: Final[int] = 16

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.squash = isinstance(spec.size, tuple)
        self.size = list(spec.size) if isinstance(spec.size, tuple) else [spec.size, spec.size]
        self.crop = list(spec.crop) if spec.crop else [0, 0]  # zeros: no crop
        self.bicubic = spec.interpolation == "bicubic"
        scale, bias = spec.normalization
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("bias", torch.from_numpy(bias).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, 3, h, w]."""
        return self.normalize(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → uint8 [N, h, w, 3]: across, then down, only what the crop keeps."""
        target_height, target_width = self.target_size(images.shape[1], images.shape[2])
        columns = self.resize_axis(images, target_width, self.crop[1])  # [w, N, H, 3]
        rows = self.resize_axis(columns, target_height, self.crop[0])  # [h, w, N, 3]
        return rows.permute(2, 0, 1, 3).contiguous()

    def normalize(self, resized: Tensor) -> Tensor:
        """uint8 [N, h, w, 3] → float32 [N, 3, h, w]; rounded after product and sum each."""
        return resized.permute(0, 3, 1, 2).contiguous().to(torch.float32) * self.scale + self.bias

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if self.squash:
            return self.size[0], self.size[1]
        if height <= width:
            return self.size[0], int(self.size[0] * width / height)
        return int(self.size[0] * height / width), self.size[0]

    def resize_axis(self, pixels: Tensor, target: int, crop: int) -> Tensor:
        """uint8 [a, b, length, 3] → uint8 [count, a, b, 3], the middle of ``target`` outputs.

        ``count`` is ``crop``, or ``target`` if that is 0.
        """
        count = crop if crop > 0 else target
        origin = _half_to_even(target - count)
        length = pixels.shape[2]
        rows = pixels.permute(2, 0, 1, 3)
        if length == target:
            return rows[origin : origin + count]
        first, weights = self.weights(length, target, origin, count)
        resized = torch.empty(
            [count, pixels.shape[0], pixels.shape[1], 3], dtype=torch.uint8, device=pixels.device
        )
        for begin in range(0, count, self.block):
            end = min(begin + self.block, count)
            start = int(first[begin].item())
            band = _band(first[begin:end] - start, weights[begin:end])
            window = rows[start : start + band.shape[1]].to(
                torch.float64, memory_format=torch.contiguous_format
            )
            # Weights of 0 may reach past the last row.
            band = band[:, : window.shape[0]].to(pixels.device)
            sums = band @ window.reshape(window.shape[0], -1)
            resized[begin:end] = self.rounded(sums).reshape(resized[begin:end].shape)
        return resized

    def weights(self, length: int, target: int, origin: int, count: int) -> tuple[Tensor, Tensor]:
        """First tap, int64 [count], and weights × 2^22, float64 [count, taps].

        Of ``count`` outputs from ``origin``.
        """
        scale = float(length) / float(target)
        filter_scale = max(scale, 1.0)
        support = (2.0 if self.bicubic else 1.0) * filter_scale
        positions = torch.arange(origin, origin + count, dtype=torch.float64, device="cpu")
        centres = (positions + 0.5) * scale
        first = (centres - support + 0.5).to(torch.int64).clamp(min=0)  # .to() drops the fraction
        after = (centres + support + 0.5).to(torch.int64).clamp(max=length)
        most = int((after - first).max().item())
        taps = first.unsqueeze(1) + torch.arange(most, dtype=torch.int64, device="cpu")
        offset = taps.to(torch.float64) - centres.unsqueeze(1) + 0.5
        values = self.filter((offset * (1.0 / filter_scale)).abs())
        return first, self.integer_weights(values * (taps < after.unsqueeze(1)))

    def integer_weights(self, values: Tensor) -> Tensor:
        """Filter values of each output's taps, float64 [outputs, taps] → integers of sum 2^22."""
        # One tap after the other; sum() would add in another order.
        total = values.cumsum(1)[:, -1:]
        scaled = values / total * self.one
        return torch.trunc(scaled + torch.sign(scaled) * 0.5)

    def rounded(self, sums: Tensor) -> Tensor:
        """Sums of pixels × weights, float64 → pixels, uint8."""
        return torch.floor(sums / self.one + 0.5).clamp(0.0, 255.0).to(torch.uint8)

    def filter(self, distance: Tensor) -> Tensor:
        """The filter's value at ``distance`` ≥ 0, float64."""
        if not self.bicubic:
            return (1.0 - distance).clamp(min=0.0)
        near = (distance * 1.5 - 2.5) * distance * distance + 1.0
        far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
        far = torch.where(distance < 2.0, far, torch.zeros_like(far))
        return torch.where(distance < 1.0, near, far)


def _half_to_even(doubled: int) -> int:
    """round(doubled / 2) for an integer ≥ 0, halves to even, the same in TorchScript."""
    half = doubled // 2
    return half + 1 if doubled % 2 == 1 and half % 2 == 1 else half


def _band(offsets: Tensor, weights: Tensor) -> Tensor:
    """Each row of ``weights`` [outputs, taps] moved right by its offset, zeros elsewhere.

    offsets  int64 [outputs], in ascending order
    """
    columns = offsets.unsqueeze(1) + torch.arange(weights.shape[1], dtype=torch.int64, device="cpu")
    band = torch.zeros(
        [weights.shape[0], int(columns[-1, -1].item()) + 1], dtype=torch.float64, device="cpu"
    )
    return band.scatter_(1, columns, weights)
