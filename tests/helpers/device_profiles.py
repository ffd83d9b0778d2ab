"""Profiles of a device that nobody has measured."""

from __future__ import annotations

from pathlib import Path

from edgetl.runtime.inference.device_profile import DeviceProfile, MeasuredModel
from helpers.small_backbone import SMALL_BACKBONE

TINY = SMALL_BACKBONE


def model(size: int, ms: float, *, backbone: str = TINY, precision: str = "fp32") -> MeasuredModel:
    """A model of 1 MB, in int8 0.3 MB, and a kilobyte for each class more than ten."""
    megabytes = 1.0 if precision == "fp32" else 0.3
    return MeasuredModel(
        backbone, size, precision, ms, 0.9 * ms, 80_000_000, int(megabytes * 1e6), 1000
    )


def write(path: Path, *models: MeasuredModel) -> str:
    """Write a profile; returns its path as ``train`` takes it."""
    machine = {"processor": "a made-up processor", "cores": 4}
    path.write_text(DeviceProfile(machine, None, "640 × 480, made up", models).to_json())
    return str(path)
