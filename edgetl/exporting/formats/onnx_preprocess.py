"""The preprocessing contract in standard ONNX operators, bit for bit.

Each axis is one banded product of integers. The outputs are divided into blocks. A block needs a
short window of input rows, which ``Gather`` copies (the resized axis comes first, so a row is one
memcpy), and one ``MatMulInteger`` per block computes all its sums. The 22-bit weights are
represented by three 8-bit digits.

Digits and pixels are both unsigned, the digits with a zero point of 128: of the kernels for CPUs
without VNNI, the one for unsigned times signed bytes adds pairs of products in 16 bits, which
saturates; the one for unsigned times unsigned bytes widens first. So the sums are exact on every
CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from edgetl.onnx_graph.graph_writer import GraphWriter, Value
from edgetl.runtime.bundle.tensor_names import NORMALIZED, RESIZED
from edgetl.runtime.images.spec import PreprocessSpec

FRACTION_BITS = 22
DIGITS = np.array([1 << 16, 1 << 8, 1], np.int32)  # value of a weight's three digits
DIGIT_ZERO = 128  # a digit of 0 is stored as 128, so that uint8 holds -128..127
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
BLOCK = 8
MIN_OPSET = 12  # Clip, Min and Max of integers


def write_preprocessing(graph: GraphWriter, spec: PreprocessSpec, images: str) -> None:
    """Append the nodes from ``images`` (uint8 [N, H, W, 3]) to ``normalized``.

    ``normalized`` is float32 [N, 3, h, w].
    """
    op = graph.op
    resized = write_resize(graph, spec, images)
    scale, bias = (values.reshape(1, 3, 1) for values in spec.normalization)
    planes = op("Transpose", op("Reshape", resized, np.array([0, -1, 3])), perm=[0, 2, 1])
    values = op("Add", op("Mul", graph.cast(planes, np.float32), scale), bias)
    # With separate height and width, onnxruntime moves the transposes that int8 convolutions want
    # up to this one, so that scale and bias are applied to three values at a time: 1.9 of 6.6 ms
    # for efficientnet_lite0. It moves none past a Reshape.
    shape: Value
    if spec.fixed_size is None:
        shape = op("Gather", op("Shape", resized), np.array([0, 3, 1, 2]))
    else:
        shape = np.array([0, 3, *spec.fixed_size])
    op("Reshape", values, shape, output=NORMALIZED)


class _Axis:
    """One axis of the resize; every value is the name of an int64 scalar in the graph, or a number.

    length, target           pixels before and after the resize
    origin, count            first one, and number, of the target pixels that the crop keeps
    first_input, last_input  the input pixels that are present, as indices into ``length``
    """

    def __init__(
        self, graph: GraphWriter, length: Value, target: Value, crop: int | None, interpolation: str
    ) -> None:
        op = graph.op
        self.graph, self.interpolation = graph, interpolation
        self.length, self.target = length, target
        self.origin: Value = 0
        self.count: Value = target
        if crop is not None:
            margin = graph.cast(op("Sub", target, crop), np.float64)
            self.origin = graph.cast(op("Round", op("Mul", margin, 0.5)), np.int64)  # half to even
            self.count = crop
        self.scale = op("Div", graph.cast(length, np.float64), graph.cast(target, np.float64))
        self.filter_scale = op("Max", self.scale, 1.0)
        self.support = op("Mul", self.filter_scale, SUPPORT[interpolation])
        self.first_input: Value = 0
        self.last_input: Value = op("Sub", length, 1)

    def crop_input(self, values: str, dimension: int) -> str:
        """Reduce ``dimension`` of ``values`` to the input pixels that the crop depends on."""
        op = self.graph.op
        last = op("Sub", op("Add", self.origin, self.count), 1)
        first, end = self.bounds(self.centres(_shape(self.graph, self.origin, last)))
        start = op("Slice", first, np.array([0]), np.array([1]))
        stop = op("Slice", end, np.array([1]), np.array([2]))
        self.first_input = op("Gather", start, 0)
        self.last_input = op("Sub", op("Gather", stop, 0), 1)
        return op("Slice", values, start, stop, np.array([dimension]))

    def centres(self, positions: Value) -> str:
        """Centres of the outputs ``positions`` (indices into the whole target), in input pixels."""
        shifted = self.graph.op("Add", self.graph.cast(positions, np.float64), 0.5)
        return self.graph.op("Mul", shifted, self.scale)

    def bounds(self, centres: str) -> tuple[str, str]:
        """First tap, and the one after the last, of the outputs at ``centres``."""
        op, cast = self.graph.op, self.graph.cast
        low = op("Add", op("Sub", centres, self.support), 0.5)
        high = op("Add", op("Add", centres, self.support), 0.5)
        # The cast drops the fraction.
        first = op("Max", cast(low, np.int64), 0)
        return first, op("Min", cast(high, np.int64), self.length)


def write_resize(graph: GraphWriter, spec: PreprocessSpec, images: str) -> str:
    """Append the nodes from ``images`` (uint8 [N, H, W, 3]) to ``resized`` (uint8 [N, h, w, 3])."""
    op = graph.op
    shape = op("Shape", images)
    photos, height, width = (op("Gather", shape, index) for index in range(3))
    target_height, target_width = _target_size(graph, spec, height, width)
    crop_height, crop_width = spec.crop or (None, None)
    across = _Axis(graph, width, target_width, crop_width, spec.interpolation)
    down = _Axis(graph, height, target_height, crop_height, spec.interpolation)
    if spec.crop is not None:
        images = down.crop_input(images, 1)
        height = op("Gather", op("Shape", images), 1)

    def resize_across() -> str:
        rows = _reshape(graph, images, photos, height, -1)
        columns = _reshape(graph, op("Transpose", rows, perm=[0, 2, 1]), photos, width, -1)
        resized = _banded_product(columns, across)
        resized = _reshape(graph, resized, photos, -1, height)
        return _reshape(graph, op("Transpose", resized, perm=[0, 2, 1]), photos, height, -1)

    def crop_across() -> str:
        return _reshape(graph, _crop(images, across, 2), photos, height, -1)

    rows = _unless_same_length(across, resize_across, crop_across, "rows")
    bands = _unless_same_length(
        down, lambda: _banded_product(rows, down), lambda: _crop(rows, down, 1), "bands"
    )
    size = _shape(graph, photos, down.count, across.count, 3)
    return op("Reshape", bands, size, output=RESIZED)


def _target_size(
    graph: GraphWriter, spec: PreprocessSpec, height: str, width: str
) -> tuple[Value, Value]:
    """``PreprocessSpec.resized_size`` in the graph."""
    if isinstance(spec.size, tuple):
        return spec.size
    op = graph.op
    short, long = op("Min", height, width), op("Max", height, width)
    product = graph.cast(op("Mul", long, spec.size), np.float64)
    ratio = op("Div", product, graph.cast(short, np.float64))
    longer = graph.cast(ratio, np.int64)  # drops the fraction
    tall, wide = op("Less", width, height), op("Less", height, width)
    return op("Where", tall, longer, spec.size), op("Where", wide, longer, spec.size)


def _unless_same_length(
    axis: _Axis, resize: Callable[[], str], crop: Callable[[], str], name: str
) -> str:
    graph = axis.graph
    same = graph.op("Equal", axis.length, axis.target)
    return graph.if_else(same, np.uint8, crop, resize, output=f"{graph.prefix}/{name}")


def _crop(values: str, axis: _Axis, dimension: int) -> str:
    graph = axis.graph
    start = graph.op("Sub", axis.origin, axis.first_input)
    end = graph.op("Add", start, axis.count)
    bounds = (_shape(graph, bound) for bound in (start, end))
    return graph.op("Slice", values, *bounds, np.array([dimension]))


def _banded_product(rows: str, axis: _Axis) -> str:
    """Resize the second axis of ``rows``: uint8 [N, length, M] → uint8 [N, count, M]."""
    graph, op = axis.graph, axis.graph.op
    blocks = op("Div", op("Add", axis.count, BLOCK - 1), BLOCK)
    positions = op("Range", 0, op("Mul", blocks, BLOCK), 1)
    last = op("Sub", axis.count, 1)
    positions = op("Min", positions, last)  # the last block repeats its last output
    positions = op("Add", positions, axis.origin)
    centres = _reshape(graph, axis.centres(positions), blocks, BLOCK, 1)
    first, end = axis.bounds(centres)
    start = op("Slice", first, np.array([0]), np.array([1]), np.array([1]))  # [blocks, 1, 1]
    stop = op("Slice", end, np.array([-1]), np.array([BLOCK]), np.array([1]))
    window = op("ReduceMax", op("Sub", stop, start), keepdims=0)
    taps = op("Add", start, op("Range", 0, window, 1))  # [blocks, 1, window]
    digits = _weight_digits(axis, taps, centres, first, end)
    present = op("Sub", op("Min", taps, axis.last_input), axis.first_input)
    indices = _reshape(graph, present, blocks, -1)
    windows = op("Gather", rows, indices, axis=1)  # [N, blocks, window, M]
    digits = _reshape(graph, digits, blocks, 3 * BLOCK, -1)
    zero_point = np.array(DIGIT_ZERO, np.uint8)
    sums = op("MatMulInteger", digits, windows, zero_point)  # int32 [N, blocks, 3·BLOCK, M]
    photos = op("Gather", op("Shape", rows), 0)
    edges = [np.array([digit * BLOCK]) for digit in range(len(DIGITS) + 1)]
    by_digit = [op("Slice", sums, begin, end, np.array([2])) for begin, end in pairwise(edges)]
    pixels = _pixels(graph, by_digit, overshoots=axis.interpolation == "bicubic")
    pixels = _reshape(graph, pixels, photos, op("Mul", blocks, BLOCK), -1)
    return op("Slice", pixels, np.array([0]), _shape(graph, axis.count), np.array([1]))


def _weight_digits(axis: _Axis, taps: str, centres: str, first: str, end: str) -> str:
    """The weights as digits, uint8 [blocks, 3, BLOCK, window]."""
    graph, op = axis.graph, axis.graph.op
    distance = op("Add", op("Sub", graph.cast(taps, np.float64), centres), 0.5)
    distance = op("Abs", op("Mul", distance, op("Div", 1.0, axis.filter_scale)))
    outside = op("Or", op("Less", taps, first), op("Not", op("Less", taps, end)))
    weights = op("Where", outside, 0.0, _filter(graph, distance, axis.interpolation))
    # CumSum adds one tap after the other, as the contract does; ReduceSum would use another order.
    sums = op("CumSum", weights, -1)
    total = op("Slice", sums, np.array([-1]), np.array([1 << 31]), np.array([2]))
    scaled = op("Mul", op("Div", weights, total), float(1 << FRACTION_BITS))
    half_away = op("Add", scaled, op("Mul", op("Sign", scaled), 0.5))
    integers = op("Add", graph.cast(half_away, np.int32), np.int32(DIGIT_ZERO * DIGITS.sum()))
    spread = op("Reshape", integers, np.array([0, 1, BLOCK, -1]))
    digits = op("Mod", op("Div", spread, DIGITS.reshape(1, 3, 1, 1)), np.int32(256))
    return graph.cast(digits, np.uint8)


def _filter(graph: GraphWriter, distance: str, interpolation: str) -> str:
    """The filter's value at ``distance`` ≥ 0, as doubles; within the taps only."""
    op = graph.op
    if interpolation == "bilinear":
        return op("Max", op("Sub", 1.0, distance), 0.0)
    near = op("Sub", op("Mul", distance, 1.5), 2.5)
    near = op("Add", op("Mul", op("Mul", near, distance), distance), 1.0)
    far = op("Add", op("Mul", op("Sub", distance, 5.0), distance), 8.0)
    far = op("Mul", op("Sub", op("Mul", far, distance), 4.0), -0.5)
    far = op("Where", op("Less", distance, 2.0), far, 0.0)
    return op("Where", op("Less", distance, 1.0), near, far)


def _pixels(graph: GraphWriter, sums: list[str], *, overshoots: bool) -> str:
    """Combine the digits' sums, round, shift and clip: three int32 → uint8.

    No sum exceeds 32 bits: the weights' absolute values add up to less than 1.3, times 255 · 2^22.
    Where all weights are positive they add up to 1, so that nothing overshoots and there is nothing
    to clip.
    """
    op = graph.op
    total = op("Add", op("Mul", sums[0], np.int32(256)), sums[1])
    total = op("Add", op("Mul", total, np.int32(256)), sums[2])
    total = op("Add", total, np.int32(1 << (FRACTION_BITS - 1)))
    if overshoots:
        total = op("Clip", total, np.int32(0), np.int32((1 << (FRACTION_BITS + 8)) - 1))
    unsigned = graph.cast(total, np.uint32)
    shifted = op("BitShift", unsigned, np.uint32(FRACTION_BITS), direction="RIGHT")
    return graph.cast(shifted, np.uint8)


def _shape(graph: GraphWriter, *lengths: Value) -> str:
    """A shape tensor, int64 [k], from int64 scalars."""
    parts = [
        np.array([part]) if isinstance(part, int) else graph.op("Reshape", part, np.array([1]))
        for part in lengths
    ]
    return graph.op("Concat", *parts, axis=0) if len(parts) > 1 else graph.op("Identity", parts[0])


def _reshape(graph: GraphWriter, values: str, *lengths: Value) -> str:
    return graph.op("Reshape", values, _shape(graph, *lengths))
