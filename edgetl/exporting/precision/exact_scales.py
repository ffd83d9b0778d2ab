"""Scales with which no result of a quantized network lies near a tie between two integers.

Near a tie, processors round differently. Layers are safe with any scales: their sums are exact
integers, which all kernels multiply by one float and round alike. For the rest, scales are made a
little larger than calibration gives them, so that no value is cut off:

sums        (a·Sa + b·Sb) / Sc is tie-free if the three scales are odd multiples of one unit: then
            the exact sum is a whole number divided by an odd one, and with k units in Sc at least
            1 / 2k away from a tie, more than any kernel's error as long as k is below a thousand.
averages,   whole numbers times one ratio of scales, which becomes a fraction with a small odd
products    denominator, for the same reason
functions   of one 8-bit value have 256 results: some scale nearby is far enough from ties
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.exporting.precision.quantized_steps import MOVES, QuantizedSteps, Scale, Step

UNITS = 511  # in the largest scale of tensors that sums connect; odd

_LARGEST_DENOMINATOR = 1023
_GROWTH = 1 + 2.0**-11  # of a scale at each try
_TRIES = 400  # up to a fifth larger
_PASSES = 4  # until steps don't disturb each other any more

Override = list[dict[str, Any]]
"""A tensor's scale and zero point as the quantizer's option TensorQuantOverrides takes them."""


def exact_scales(
    model: onnx.ModelProto, input_values: NDArray[np.float32] | None
) -> dict[str, Override]:
    """Scales of those tensors that need others than ``model`` has, by name.

    model         as onnxruntime's QDQ quantizer writes it without these scales
    input_values  all values that the network's input takes; None: unknown

    A step that no scales make exact keeps those that it has.
    """
    steps = QuantizedSteps(model, input_values)
    before, scales = dict(steps.scales), steps.scales
    sums = _sums(model.graph, steps.sources)
    together = _merged([*sums, *_moves(model.graph, steps)])
    for group in together:
        if any(names <= group for names in sums):
            _make_odd(group, scales)
    groups = {name: group for group in together for name in group}
    for _ in range(_PASSES):
        inexact = [step for step in steps.steps if step.results and not step.is_exact(scales)]
        for step in inexact:
            _adjust(step, groups.get(step.result, {step.result}), scales)
        if not inexact:
            break
    return {
        name: [
            {
                "scale": np.array(scale.size, np.float32),
                "zero_point": np.array(scale.zero_point, np.uint8),
            }
        ]
        for name, scale in sorted(scales.items())
        if scale != before[name]
    }


def _make_odd(group: Iterable[str], scales: dict[str, Scale]) -> None:
    """Make the scales odd multiples of one unit, each larger by less than two units."""
    unit = max(scales[name].size for name in group) / UNITS
    for name in group:
        units = 2 * math.ceil((scales[name].size / unit - 1 - 1e-6) / 2) + 1
        scales[name] = scales[name].grown(units * unit)


def _adjust(step: Step, group: Iterable[str], scales: dict[str, Scale]) -> None:
    """Enlarge the scale of the step's result, with the others of its ``group``, until it is exact.

    The scales stay as they are if that does not help.
    """
    given = {name: scales[name] for name in group}
    factor = 1.0
    if step.ratio is not None:
        ratio = step.ratio(scales) / scales[step.result].size
        factor = ratio / float(_odd_fraction(ratio))
    for _ in range(_TRIES):
        scales.update({name: scale.grown(scale.size * factor) for name, scale in given.items()})
        if step.is_exact(scales):
            return
        factor *= _GROWTH
    scales.update(given)


def _odd_fraction(ratio: float) -> Fraction:
    """The largest fraction up to ``ratio`` whose denominator is odd and small."""
    denominators = np.arange(1, _LARGEST_DENOMINATOR + 1, 2)
    numerators = np.floor(ratio * denominators * (1 + 1e-9)).astype(int)
    best = int((numerators / denominators).argmax())
    if not numerators[best]:  # smaller than all of them
        return Fraction(ratio)
    return Fraction(int(numerators[best]), int(denominators[best]))


def _sums(graph: onnx.GraphProto, sources: Mapping[str, str]) -> list[set[str]]:
    """The quantized terms and result of each sum."""
    results = {*sources.values()}
    return [
        {node.output[0], *(sources[name] for name in node.input)}
        for node in graph.node
        if node.op_type == "Add" and node.output[0] in results and sources.keys() >= {*node.input}
    ]


def _moves(graph: onnx.GraphProto, steps: QuantizedSteps) -> list[set[str]]:
    """Pairs of tensors to which the quantizer gives one scale: values that are only moved."""
    pairs = [
        (steps.sources.get(node.input[0]), node.output[0])
        for node in graph.node
        if node.op_type in MOVES and node.input
    ]
    scales = steps.scales
    return [
        {before, after}
        for before, after in pairs
        if before and after in scales and scales[before] == scales[after]
    ]


def _merged(sets: Iterable[set[str]]) -> list[set[str]]:
    """Sets without common members, each of those that overlap."""
    found: list[set[str]] = []
    for names in sets:
        touched = [group for group in found if group & names]
        found = [group for group in found if not group & names]
        found.append(names.union(*touched))
    return found
