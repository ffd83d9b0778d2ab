"""One process or many: started by torchrun, each trains on its share of every batch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from edgetl.errors import RuntimeUnavailableError, TrainingError, first_line

# One process may decode, solve a head or write a report for long while the others wait: torch's 10 minutes would end
# such a run. A process that dies is torchrun's to notice, on its own machine; one that never came is noticed here.
_PATIENCE = timedelta(days=1)
_MEETING = timedelta(
    hours=1
)  # each looks at all photos before it, some from slower disks than others

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    rank        0 writes files and talks to the user
    local_rank  among the ``local_world_size`` processes on this machine
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of a small tensor."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Iterable[torch.Tensor]) -> None:
        """Have every process hold the first one's values."""
        if self.world_size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def any(self, condition: bool) -> bool:
        """Whether it holds in at least one process. Every process must ask at the same point."""
        if self.world_size == 1:
            return condition
        return bool(self.all_reduce_max(float(condition))[0])

    def all_reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over all processes. Every process must ask at the same point."""
        if self.world_size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float32, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [float(value) for value in largest.tolist()]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N → a device that is here. Raises RuntimeUnavailableError if it isn't."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RuntimeUnavailableError(
            f"There is no device {name!r}.", "--device takes auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise RuntimeUnavailableError(
            f"torch sees {found} CUDA device{'' if found == 1 else 's'} here; {name} is not among them.",
            "Use --device cpu, or install a torch built for your CUDA.",
        )
    if device.type not in ("cpu", "cuda"):
        raise RuntimeUnavailableError(
            f"--device {name} can't be trained on.", "It takes auto, cpu, cuda or cuda:N."
        )
    return device


def describe(processes: Processes) -> str:
    """What trains, in words."""
    if processes.device.type == "cuda":
        return f"{processes.world_size} × {torch.cuda.get_device_name(processes.device)}"
    threads = torch.get_num_threads()
    return f"CPU, {processes.world_size} × {threads} thread{'' if threads == 1 else 's'}"


@contextmanager
def join(device_name: str) -> Iterator[Processes]:
    """Meet the other processes if torchrun started this one, and part from them at the end.

    Raises TrainingError if they don't come, or are gone before that.
    """
    device = choose_device(device_name)
    size = os.environ.get("WORLD_SIZE") or "1"
    if not size.isdecimal():
        raise RuntimeUnavailableError(
            f"WORLD_SIZE is {size!r}, no number.",
            "Start edgetl with torchrun, or unset WORLD_SIZE.",
        )
    count = int(size)
    if count == 1:
        # What asks for no device gets the current one: pinned memory, or whether bf16 is there.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield Processes(device)
        return
    if not {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
        raise RuntimeUnavailableError(
            f"WORLD_SIZE is {count}, but torchrun did not start this process.",
            "Start it with torchrun, or unset WORLD_SIZE.",
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = choose_device(f"cuda:{local_rank}")
        torch.cuda.set_device(device)
    on_gpu = device.type == "cuda"
    store, rank = _meet()
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=_PATIENCE,
            device_id=device if on_gpu else None,
        )
        yield Processes(device, rank, count, local_rank, int(os.environ["LOCAL_WORLD_SIZE"]))
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise TrainingError(
            f"The connection to another process is lost: {_plain(error)}.",
            "If that has ended, it says why; where it was killed, go on with edgetl train --resume.",
        ) from error
    # Not after an error: NCCL would wait here for processes that wait for this one, and torchrun see none of them end.
    dist.destroy_process_group()


def _plain(error: Exception) -> str:
    """What went wrong, without the place in gloo's source before it and its advice behind."""
    return (
        re.sub(r"^\[\S*/gloo/\S*\] ", "", first_line(error))
        .partition(". This is typically")[0]
        .rstrip(".")
    )


def _meet() -> tuple[Any, int]:
    """(where all processes find each other, this one's rank)."""
    try:
        store, rank, count = next(rendezvous("env://", timeout=_MEETING))
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(count)], _MEETING)
    except dist.DistError as error:
        raise TrainingError(
            f"Not all {os.environ['WORLD_SIZE']} processes of this run have come.",
            "See what the others say where they were started, and start all again.",
        ) from error
    return store, rank
