"""Freed memory is kept while training on a CPU, and returned to the system afterwards."""

from __future__ import annotations

import os
import platform
import resource
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.forked import Forked

from edgetl.training.torch_env.malloc import keep_freed_memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)
BLOCK = 1 << 24  # float32: 64 MB, more than glibc ever keeps of its own accord


def pages_fetched(size: int = BLOCK) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.full((size,), 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def freed_blocks_are_used_again_and_only_then() -> None:
    with keep_freed_memory(torch.device("cpu")):
        torch.full((BLOCK,), 1.0)
        kept = pages_fetched()
    usual = pages_fetched()
    assert kept < usual / 10


def memory_is_given_back_at_the_end() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with keep_freed_memory(torch.device("cpu")):
        blocks = [torch.full((BLOCK,), 1.0) for _ in range(4)]
        del blocks
        within = resident()
    assert resident() < within - 2 * 4 * BLOCK


def smaller_blocks_are_used_again_afterwards_as_ever(size: int) -> None:
    with keep_freed_memory(torch.device("cpu")):
        torch.full((BLOCK,), 1.0)
    torch.full((size,), 1.0)
    assert (
        pages_fetched(size) < size * 4 / resource.getpagesize()
    )  # they were fetched once, not ten times


def a_gpu_run_changes_nothing() -> None:
    with keep_freed_memory(torch.device("cuda")):
        torch.full((BLOCK,), 1.0)
        within = pages_fetched()
    assert within > 10


CHECKS = {
    "freed_blocks_are_used_again_and_only_then": freed_blocks_are_used_again_and_only_then,
    "memory_is_given_back_at_the_end": memory_is_given_back_at_the_end,
    "small_blocks_are_used_again_afterwards_as_ever": partial(
        smaller_blocks_are_used_again_afterwards_as_ever, 1 << 18
    ),
    "smaller_blocks_are_used_again_afterwards_as_ever": partial(
        smaller_blocks_are_used_again_afterwards_as_ever, 1 << 21
    ),
    "a_gpu_run_changes_nothing": a_gpu_run_changes_nothing,
}


def run_checks() -> None:
    """Run each in a process of its own."""
    for name, check in CHECKS.items():
        process = os.fork()
        if process == 0:
            check()
            os._exit(0)
        if os.waitpid(process, 0)[1]:
            sys.exit(name)


def test_each_in_a_process_of_its_own() -> None:
    """In this one, glibc might reuse the memory that other tests have freed."""
    code, said = Forked(program=run_checks).ended()
    assert code == 0, said
