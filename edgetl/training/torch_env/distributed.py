"""Training in one process, or in several started by torchrun, each on its share of the batch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from edgetl.errors import EdgetlError, RuntimeUnavailableError, TrainingError, first_line
from edgetl.system.message_text import counted

# One process may decode, solve a head or write a report for long while the others wait: torch's
# default of 10 minutes would end such a run. torchrun notices processes that die.
_TIMEOUT = timedelta(days=1)
# For processes that never start. Each scans all photos first, some from slower disks than others.
RENDEZVOUS_TIMEOUT = timedelta(hours=1)

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; the names are torch.distributed's.

    rank        0 for the main process, which writes files and prints
    local_rank  among the ``local_world_size`` processes on this machine
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Iterable[torch.Tensor]) -> None:
        """Copy the main process's values to all processes, in place."""
        if self.world_size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def any(self, condition: bool) -> bool:
        """Whether it is true in at least one process. Every process must call it."""
        if self.world_size == 1:
            return condition
        return bool(self.all_reduce_max(float(condition))[0])

    def all_reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over all processes. Every process must call it."""
        if self.world_size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float32, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [float(value) for value in largest.tolist()]

    def from_main(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns, or the EdgetlError that it raises, in the main process alone.

        Every process must call it.
        """
        result: T | None = None
        failure: EdgetlError | None = None
        if self.is_main:
            try:
                result = compute()
            except EdgetlError as error:
                failure = error
        result, failure = self.all_gather((result, failure))[0]
        if failure is not None:  # in every process, or the others would wait for the main one
            raise failure
        return cast("T", result)

    def barrier(self) -> None:
        """Wait until every process has called it."""
        if self.world_size > 1:
            dist.barrier()


def choose_device(name: str) -> torch.device:
    """The device that ``name`` (auto, cpu, cuda or cuda:N) means.

    Raises RuntimeUnavailableError if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RuntimeUnavailableError(
            f"There is no device {name!r}.", "--device takes auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise RuntimeUnavailableError(
            f"torch finds {counted(count, 'CUDA device')}; {name} is not one of them.",
            "Use --device cpu, or install a torch built for your CUDA.",
        )
    if device.type not in ("cpu", "cuda"):
        raise RuntimeUnavailableError(
            f"edgetl does not train on {name}.", "--device takes auto, cpu, cuda or cuda:N."
        )
    return device


def describe(processes: Processes) -> str:
    """The processes' devices, for the report."""
    if processes.device.type == "cuda":
        return f"{processes.world_size} × {torch.cuda.get_device_name(processes.device)}"
    threads = torch.get_num_threads()
    return f"CPU, {processes.world_size} × {counted(threads, 'thread')}"


@contextmanager
def join(device_name: str) -> Iterator[Processes]:
    """Join the other processes if torchrun started this one, and leave them at the end.

    Raises TrainingError if some don't start or the connection is lost, RuntimeUnavailableError for
    a device that is missing or if torchrun's environment variables are wrong.
    """
    device = choose_device(device_name)
    size = os.environ.get("WORLD_SIZE") or "1"
    if not size.isdecimal():
        raise RuntimeUnavailableError(
            f"WORLD_SIZE is {size!r}, not a number.",
            "Start edgetl with torchrun, or unset WORLD_SIZE.",
        )
    count = int(size)
    if count == 1:
        # Pinned memory, and the check for bf16, use the current device.
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
    store, rank = _rendezvous()
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=_TIMEOUT,
            device_id=device if on_gpu else None,
        )
        yield Processes(device, rank, count, local_rank, int(os.environ["LOCAL_WORLD_SIZE"]))
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise TrainingError(
            f"The connection to another process is lost: {_without_source(error)}.",
            "Its output says why it ended; if it was killed, continue with edgetl train --resume.",
        ) from error
    # Not after an error: NCCL would wait here for processes that wait for this one, and torchrun
    # would see none of them end.
    dist.destroy_process_group()


def _without_source(error: Exception) -> str:
    """The message without the place in gloo's source and without gloo's advice."""
    message = re.sub(r"^\[\S*/gloo/\S*\] ", "", first_line(error))
    return message.partition(". This is typically")[0].rstrip(".")


def _rendezvous() -> tuple[Any, int]:
    """(the store that all processes share, the rank of this one)."""
    try:
        store, rank, count = next(rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        store.set(f"joined/{rank}", "")
        store.wait([f"joined/{other}" for other in range(count)], RENDEZVOUS_TIMEOUT)
    except dist.DistError as error:
        raise TrainingError(
            f"Not all {os.environ['WORLD_SIZE']} processes of this run have started.",
            "See the output of the others, and start all of them again.",
        ) from error
    return store, rank
