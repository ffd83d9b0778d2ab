"""How processes that train together agree on what to do next."""

from __future__ import annotations

import time

from edgetl.training.torch_env.distributed import Processes

# Each exchange waits for the slowest process, so there is none after every step; but torchrun kills
# processes that have not ended 30 seconds after Ctrl-C.
_SECONDS, _MOST_STEPS = 1.0, 10


class Agreement:
    """Exchanges values between the processes during an epoch: about once a second.

    At least every ``_MOST_STEPS`` steps; a single process after each step, which costs nothing.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._exchanged = time.monotonic()
        self._steps = self._pause = 0

    def is_due(self) -> bool:
        """Count a step; whether to exchange after it. The same in all processes."""
        self._steps += 1
        return self._steps >= self._pause

    def exchange(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        seconds_per_step = (time.monotonic() - self._exchanged) / max(self._steps, 1)
        *agreed, slowest = self._processes.all_reduce_max(*values, seconds_per_step)
        if self._processes.world_size > 1:
            self._pause = min(int(_SECONDS / max(slowest, 1e-9)), _MOST_STEPS)
        self._exchanged, self._steps = time.monotonic(), 0
        return agreed
