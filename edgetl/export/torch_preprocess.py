"""The preprocessing contract as a torch module that TorchScript can take along, the same bits as everywhere else.

Weights are made on the CPU, whatever the device of the photos: they are few, and every CPU rounds doubles alike.
The products are sums of whole numbers below 2^53 in float64, so they are exact in any order, on any device, under
autocast, and with TF32 allowed.
"""

from typing import Final

import torch
from torch import Tensor, nn

from edgetl.runtime.preprocess import normalization
from edgetl.runtime.spec import PreprocessSpec


class Preprocess(nn.Module):
    """uint8 photos of any size → the network's input, as ``spec`` says. Scriptable."""

    # Constants of the class, since TorchScript sees no globals.
    one: Final[float] = 2.0**22  # a weight of 1, in whole numbers of 22 fractional bits
    block: Final[int] = 16  # outputs that share one product; their taps overlap, so the window is hardly longer than one's

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.squash = isinstance(spec.size, tuple)
        self.size = list(spec.size) if isinstance(spec.size, tuple) else [spec.size, spec.size]
        self.crop = list(spec.crop) if spec.crop else [0, 0]  # zeros: no crop
        self.bicubic = spec.interpolation == "bicubic"
        scale, bias = normalization(spec)
        self.scale: Tensor
        self.bias: Tensor
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("bias", torch.from_numpy(bias).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float32 [N, 3, h, w]."""
        return self.normalize(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → uint8 [N, h, w, 3]: across, then down, each only where the crop will be."""
        photos, height, width = images.shape[0], images.shape[1], images.shape[2]
        target_height, target_width = self.target_size(height, width)
        columns = images.permute(2, 0, 1, 3).reshape(width, -1)
        columns = self.resize_rows(columns, target_width, self.crop[1])
        rows = columns.reshape(-1, photos, height, 3).permute(2, 1, 0, 3).reshape(height, -1)
        rows = self.resize_rows(rows, target_height, self.crop[0])
        return rows.reshape(rows.shape[0], photos, -1, 3).permute(1, 0, 2, 3).contiguous()

    def normalize(self, resized: Tensor) -> Tensor:
        """uint8 [N, h, w, 3] → float32 [N, 3, h, w]; rounded after the product and after the sum."""
        return resized.permute(0, 3, 1, 2).contiguous().to(torch.float32) * self.scale + self.bias

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if self.squash:
            return self.size[0], self.size[1]
        if height <= width:
            return self.size[0], int(self.size[0] * width / height)
        return int(self.size[0] * height / width), self.size[0]

    def resize_rows(self, rows: Tensor, target: int, crop: int) -> Tensor:
        """uint8 [length, M] → uint8 [crop or target, M]: the wanted middle of ``target`` outputs."""
        count = crop if crop > 0 else target
        origin = _half_to_even(target - count)
        length = rows.shape[0]
        if length == target:
            return rows[origin : origin + count]
        resized = torch.empty([count, rows.shape[1]], dtype=torch.uint8, device=rows.device)
        for begin in range(0, count, self.block):
            end = min(begin + self.block, count)
            first, weights = self.weights(length, target, origin + begin, origin + end)
            window = rows[first : first + weights.shape[1]].to(torch.float64)
            sums = weights.to(rows.device) @ window
            rounded = torch.floor(sums / self.one + 0.5)
            resized[begin:end] = rounded.clamp(0.0, 255.0).to(torch.uint8)
        return resized

    def weights(self, length: int, target: int, begin: int, end: int) -> tuple[int, Tensor]:
        """Of outputs ``begin`` up to ``end``: their first input row, and float64 weights [end − begin, window] × 2^22."""
        scale = float(length) / float(target)
        filter_scale = max(scale, 1.0)
        support = (2.0 if self.bicubic else 1.0) * filter_scale
        centres = (torch.arange(begin, end, dtype=torch.float64, device="cpu") + 0.5) * scale
        first = (centres - support + 0.5).to(torch.int64).clamp(min=0).unsqueeze(1)  # .to() drops the fraction
        after = (centres + support + 0.5).to(torch.int64).clamp(max=length).unsqueeze(1)
        start = int(first[0].item())
        taps = torch.arange(start, int(after[-1].item()), dtype=torch.int64, device="cpu").unsqueeze(0)
        distance = ((taps.to(torch.float64) - centres.unsqueeze(1) + 0.5) * (1.0 / filter_scale)).abs()
        values = self.filter(distance) * torch.logical_and(taps >= first, taps < after)
        total = values[:, 0].clone()
        for tap in range(1, values.shape[1]):  # one tap after the other: sum() would add in another order
            total += values[:, tap]
        scaled = values / total.unsqueeze(1) * self.one
        return start, torch.trunc(scaled + torch.sign(scaled) * 0.5)

    def filter(self, distance: Tensor) -> Tensor:
        """The filter's value at ``distance`` ≥ 0, float64."""
        if not self.bicubic:
            return (1.0 - distance).clamp(min=0.0)
        near = (distance * 1.5 - 2.5) * distance * distance + 1.0
        far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
        return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, torch.zeros_like(far)))


def _half_to_even(doubled: int) -> int:
    """round(doubled / 2) for a whole number ≥ 0, halves to the even neighbour; written so that TorchScript agrees."""
    half = doubled // 2
    return half + 1 if doubled % 2 == 1 and half % 2 == 1 else half
