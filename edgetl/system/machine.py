"""The processor, and how many of its cores this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

# A container's limit (cgroup v2): "max 100000", or microseconds of processor time and the period.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores this process may use, at least 1: its affinity, limited by the container's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        allowed, period = map(int, _QUOTA.read_text().split())
        return max(1, min(count, math.ceil(allowed / period)))
    return count


def processor() -> str:
    """The processor's model name, or its architecture where the system has no name for it."""
    import platform  # takes milliseconds that a prediction needn't wait for

    try:  # platform.processor() is empty on most Linux systems
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
