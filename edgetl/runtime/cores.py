"""How many processors this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """At least 1; those that the process is pinned to, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
