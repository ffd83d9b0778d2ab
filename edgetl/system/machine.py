"""What the processor is, and how much of it this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_QUOTA = Path(
    "/sys/fs/cgroup/cpu.max"
)  # of a container (cgroup v2): "max 100000", or microseconds in so many of them


def cores() -> int:
    """At least 1; those that the process is pinned to, and no more than its container may keep busy, where the system tells."""
    pinned = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with suppress(OSError, ValueError):
        allowed, period = map(int, _QUOTA.read_text().split())
        return max(1, min(pinned, math.ceil(allowed / period)))
    return pinned


def processor() -> str:
    """The processor's name, or at least its kind."""
    import platform  # takes milliseconds, which a predictor needn't wait for

    try:  # platform.processor() is empty on most Linux systems
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [
        line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))
    ]
    return names[0] if names else platform.processor() or platform.machine()
