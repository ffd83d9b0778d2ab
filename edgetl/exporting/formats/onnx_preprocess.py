"""The preprocessing contract in standard ONNX operators, the same bits as everywhere else.

Each axis is one banded product of whole numbers. The outputs are cut into blocks; a block needs a short window of
input rows, which ``Gather`` copies whole (the resized axis comes first, so a row is one memcpy), and one
``MatMulInteger`` a block gives all its sums. The 22-bit weights go in as three 8-bit digits.

Digits and pixels are both unsigned, the digits with a zero point of 128: of the kernels for CPUs without VNNI, the
one for unsigned times signed bytes adds pairs of products in 16 bits, which saturates; the one for unsigned times
unsigned bytes widens first. So every CPU gives the exact sums.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgetl.onnx_graph.graph_writer import GraphWriter, Value
from edgetl.runtime.bundle.tensor_names import NORMALIZED, RESIZED
from edgetl.runtime.images.resize import normalization
from edgetl.runtime.images.spec import PreprocessSpec

FRACTION_BITS = 22
DIGITS = np.array(
    [1 << 16, 1 << 8, 1], np.int32
)  # what the three digits of a weight stand for, most significant first
DIGIT_ZERO = 128  # a digit of 0 is stored as 128, so that uint8 holds -128..127
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
BLOCK = 8
MIN_OPSET = 12  # Clip, Min and Max of integers


def write_preprocessing(graph: GraphWriter, spec: PreprocessSpec, images: str) -> None:
    """Append the nodes from ``images`` (uint8 [N, H, W, 3]) → the name ``normalized`` (float32 [N, 3, h, w])."""
    resized = write_resize(graph, spec, images)
    scale, bias = (values.reshape(1, 3, 1) for values in normalization(spec))
    planes = graph.op(
        "Transpose", graph.op("Reshape", resized, np.array([0, -1, 3])), perm=[0, 2, 1]
    )
    values = graph.op("Add", graph.op("Mul", graph.cast(planes, np.float32), scale), bias)
    # With height and width apart, onnxruntime moves the transposes that int8 convolutions want up to this one, so that
    # scale and bias meet three values at a time: 1.9 of 6.6 ms for efficientnet_lite0. It moves none past a Reshape.
    shape: Value
    if spec.fixed_size is None:
        shape = graph.op("Gather", graph.op("Shape", resized), np.array([0, 3, 1, 2]))
    else:
        shape = np.array([0, 3, *spec.fixed_size])
    graph.op("Reshape", values, shape, output=NORMALIZED)


class _Axis:
    """One axis of the resize; every value is the name of an int64 scalar in the graph.

    length → target pixels; of the target, ``count`` pixels from ``origin`` are wanted.
    first_input, last_input: the input pixels that are there, counted in the whole length.
    """

    def __init__(
        self,
        graph: GraphWriter,
        length: Value,
        target: Value,
        crop: int | None,
        filter_support: float,
    ) -> None:
        self.length, self.target = length, target
        self.origin: Value
        self.count: Value
        if crop is None:
            self.origin, self.count = 0, target
        else:
            margin = graph.cast(graph.op("Sub", target, crop), np.float64)
            self.origin = graph.cast(
                graph.op("Round", graph.op("Mul", margin, 0.5)), np.int64
            )  # half to even
            self.count = crop
        self.scale = graph.op("Div", graph.cast(length, np.float64), graph.cast(target, np.float64))
        self.filter_scale = graph.op("Max", self.scale, 1.0)
        self.support = graph.op("Mul", self.filter_scale, filter_support)
        self.first_input: Value = 0
        self.last_input: Value = graph.op("Sub", length, 1)

    def keep_what_is_needed(self, graph: GraphWriter, values: str, dimension: int) -> str:
        """Cut ``dimension`` of ``values`` down to the input pixels that the wanted outputs are made of."""
        last = graph.op("Sub", graph.op("Add", self.origin, self.count), 1)
        first, end = self.bounds(graph, self.centres(graph, _shape(graph, self.origin, last)))
        start, stop = (
            graph.op("Slice", bound, np.array([at]), np.array([at + 1]))
            for bound, at in ((first, 0), (end, 1))
        )
        self.first_input = graph.op("Gather", start, 0)
        self.last_input = graph.op("Sub", graph.op("Gather", stop, 0), 1)
        return graph.op("Slice", values, start, stop, np.array([dimension]))

    def centres(self, graph: GraphWriter, positions: Value) -> str:
        """Where outputs ``positions`` (int64, counted in the whole target) lie on the input axis, in pixels."""
        return graph.op("Mul", graph.op("Add", graph.cast(positions, np.float64), 0.5), self.scale)

    def bounds(self, graph: GraphWriter, centres: str) -> tuple[str, str]:
        """First tap, and the one after the last, of the outputs at ``centres``; the cast drops the fraction."""
        low = graph.op("Add", graph.op("Sub", centres, self.support), 0.5)
        high = graph.op("Add", graph.op("Add", centres, self.support), 0.5)
        return graph.op("Max", graph.cast(low, np.int64), 0), graph.op(
            "Min", graph.cast(high, np.int64), self.length
        )


def write_resize(graph: GraphWriter, spec: PreprocessSpec, images: str) -> str:
    """Append the nodes from ``images`` (uint8 [N, H, W, 3]) → the name ``resized`` (uint8 [N, h, w, 3])."""
    shape = graph.op("Shape", images)
    photos, height, width = (graph.op("Gather", shape, index) for index in range(3))
    target_height, target_width = _target_size(graph, spec, height, width)
    crop_height, crop_width = spec.crop or (None, None)
    support = SUPPORT[spec.interpolation]
    across = _Axis(graph, width, target_width, crop_width, support)
    down = _Axis(graph, height, target_height, crop_height, support)
    if spec.crop is not None:
        images = down.keep_what_is_needed(graph, images, 1)
        height = graph.op("Gather", graph.op("Shape", images), 1)

    def resize_across() -> str:
        by_column = graph.op(
            "Transpose", _reshape(graph, images, photos, height, -1), perm=[0, 2, 1]
        )
        columns = _banded_product(
            graph, _reshape(graph, by_column, photos, width, -1), across, spec.interpolation
        )
        by_row = graph.op("Transpose", _reshape(graph, columns, photos, -1, height), perm=[0, 2, 1])
        return _reshape(graph, by_row, photos, height, -1)

    def crop_across() -> str:
        return _reshape(graph, _crop(graph, images, across, 2), photos, height, -1)

    rows = _unless_same_length(graph, across, resize_across, crop_across, "rows")
    bands = _unless_same_length(
        graph,
        down,
        lambda: _banded_product(graph, rows, down, spec.interpolation),
        lambda: _crop(graph, rows, down, 1),
        "bands",
    )
    return graph.op(
        "Reshape", bands, _shape(graph, photos, down.count, across.count, 3), output=RESIZED
    )


def _target_size(
    graph: GraphWriter, spec: PreprocessSpec, height: str, width: str
) -> tuple[Value, Value]:
    """PreprocessSpec.resized_size, in the graph."""
    if isinstance(spec.size, tuple):
        return spec.size
    short, long = graph.op("Min", height, width), graph.op("Max", height, width)
    ratio = graph.op(
        "Div",
        graph.cast(graph.op("Mul", long, spec.size), np.float64),
        graph.cast(short, np.float64),
    )
    longer = graph.cast(ratio, np.int64)  # drops the fraction
    tall, wide = graph.op("Less", width, height), graph.op("Less", height, width)
    return graph.op("Where", tall, longer, spec.size), graph.op("Where", wide, longer, spec.size)


def _unless_same_length(
    graph: GraphWriter, axis: _Axis, resize: Callable[[], str], crop: Callable[[], str], name: str
) -> str:
    same = graph.op("Equal", axis.length, axis.target)
    return graph.choose(same, np.uint8, crop, resize, output=f"{graph.prefix}/{name}")


def _crop(graph: GraphWriter, values: str, axis: _Axis, dimension: int) -> str:
    start = graph.op("Sub", axis.origin, axis.first_input)
    end = graph.op("Add", start, axis.count)
    return graph.op(
        "Slice", values, *(_shape(graph, bound) for bound in (start, end)), np.array([dimension])
    )


def _banded_product(graph: GraphWriter, rows: str, axis: _Axis, interpolation: str) -> str:
    """Resize the second axis of ``rows``: uint8 [N, length, M] → uint8 [N, count, M]."""
    blocks = graph.op("Div", graph.op("Add", axis.count, BLOCK - 1), BLOCK)
    positions = graph.op("Range", 0, graph.op("Mul", blocks, BLOCK), 1)
    last = graph.op("Sub", axis.count, 1)
    positions = graph.op(
        "Add", graph.op("Min", positions, last), axis.origin
    )  # the last block repeats its last output
    centres = _reshape(graph, axis.centres(graph, positions), blocks, BLOCK, 1)
    first, end = axis.bounds(graph, centres)
    start = graph.op("Slice", first, np.array([0]), np.array([1]), np.array([1]))  # [blocks, 1, 1]
    stop = graph.op("Slice", end, np.array([-1]), np.array([BLOCK]), np.array([1]))
    window = graph.op("ReduceMax", graph.op("Sub", stop, start), keepdims=0)
    taps = graph.op("Add", start, graph.op("Range", 0, window, 1))  # [blocks, 1, window]
    digits = _weight_digits(graph, taps, centres, first, end, axis, interpolation)
    inside = graph.op("Sub", graph.op("Min", taps, axis.last_input), axis.first_input)
    windows = graph.op(
        "Gather", rows, _reshape(graph, inside, blocks, -1), axis=1
    )  # [N, blocks, window, M]
    digits = _reshape(graph, digits, blocks, 3 * BLOCK, -1)
    sums = graph.op(
        "MatMulInteger", digits, windows, np.array(DIGIT_ZERO, np.uint8)
    )  # int32 [N, blocks, 3·BLOCK, M]
    photos = graph.op("Gather", graph.op("Shape", rows), 0)
    by_digit = [
        graph.op(
            "Slice", sums, np.array([digit * BLOCK]), np.array([(digit + 1) * BLOCK]), np.array([2])
        )
        for digit in range(len(DIGITS))
    ]
    pixels = _pixels(graph, by_digit, overshoots=interpolation == "bicubic")
    pixels = _reshape(graph, pixels, photos, graph.op("Mul", blocks, BLOCK), -1)
    return graph.op("Slice", pixels, np.array([0]), _shape(graph, axis.count), np.array([1]))


def _weight_digits(
    graph: GraphWriter,
    taps: str,
    centres: str,
    first: str,
    end: str,
    axis: _Axis,
    interpolation: str,
) -> str:
    """The weights as digits, uint8 [blocks, 3, BLOCK, window]."""
    distance = graph.op("Add", graph.op("Sub", graph.cast(taps, np.float64), centres), 0.5)
    distance = graph.op("Abs", graph.op("Mul", distance, graph.op("Div", 1.0, axis.filter_scale)))
    outside = graph.op(
        "Or", graph.op("Less", taps, first), graph.op("Not", graph.op("Less", taps, end))
    )
    weights = graph.op("Where", outside, 0.0, _filter(graph, distance, interpolation))
    # CumSum adds one tap after the other, as the contract does; ReduceSum would add in another order.
    total = graph.op(
        "Slice", graph.op("CumSum", weights, -1), np.array([-1]), np.array([1 << 31]), np.array([2])
    )
    scaled = graph.op("Mul", graph.op("Div", weights, total), float(1 << FRACTION_BITS))
    half_away = graph.op("Add", scaled, graph.op("Mul", graph.op("Sign", scaled), 0.5))
    whole = graph.op("Add", graph.cast(half_away, np.int32), np.int32(DIGIT_ZERO * DIGITS.sum()))
    spread = graph.op("Reshape", whole, np.array([0, 1, BLOCK, -1]))
    digits = graph.op("Mod", graph.op("Div", spread, DIGITS.reshape(1, 3, 1, 1)), np.int32(256))
    return graph.cast(digits, np.uint8)


def _filter(graph: GraphWriter, distance: str, interpolation: str) -> str:
    """The filter's value at ``distance`` ≥ 0, as doubles; within the taps only."""
    if interpolation == "bilinear":
        return graph.op("Max", graph.op("Sub", 1.0, distance), 0.0)
    near = graph.op("Sub", graph.op("Mul", distance, 1.5), 2.5)
    near = graph.op("Add", graph.op("Mul", graph.op("Mul", near, distance), distance), 1.0)
    far = graph.op("Add", graph.op("Mul", graph.op("Sub", distance, 5.0), distance), 8.0)
    far = graph.op("Mul", graph.op("Sub", graph.op("Mul", far, distance), 4.0), -0.5)
    far = graph.op("Where", graph.op("Less", distance, 2.0), far, 0.0)
    return graph.op("Where", graph.op("Less", distance, 1.0), near, far)


def _pixels(graph: GraphWriter, sums: list[str], *, overshoots: bool) -> str:
    """Put the digits' sums together, round, shift and clip: three int32 → uint8.

    No sum leaves 32 bits: the weights' absolute values add up to less than 1.3, times 255 · 2^22. Where all weights
    are positive they add up to 1, so that nothing overshoots and there is nothing to clip.
    """
    total = graph.op("Add", graph.op("Mul", sums[0], np.int32(256)), sums[1])
    total = graph.op("Add", graph.op("Mul", total, np.int32(256)), sums[2])
    total = graph.op("Add", total, np.int32(1 << (FRACTION_BITS - 1)))
    if overshoots:
        total = graph.op("Clip", total, np.int32(0), np.int32((1 << (FRACTION_BITS + 8)) - 1))
    shifted = graph.op(
        "BitShift", graph.cast(total, np.uint32), np.uint32(FRACTION_BITS), direction="RIGHT"
    )
    return graph.cast(shifted, np.uint8)


def _shape(graph: GraphWriter, *lengths: Value) -> str:
    """A shape tensor, int64 [k], of int64 scalars."""
    parts = [
        np.array([part]) if isinstance(part, int) else graph.op("Reshape", part, np.array([1]))
        for part in lengths
    ]
    return graph.op("Concat", *parts, axis=0) if len(parts) > 1 else graph.op("Identity", parts[0])


def _reshape(graph: GraphWriter, values: str, *lengths: Value) -> str:
    return graph.op("Reshape", values, _shape(graph, *lengths))
