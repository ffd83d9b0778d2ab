"""Memory between steps: kept while training on a CPU, given back afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from edgetl.training.heap import memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
BLOCK = 1 << 24  # float32: 64 MB, more than glibc ever keeps of its own accord


def pages_fetched(size: int = BLOCK) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.full((size,), 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_blocks_are_used_again_and_only_then() -> None:
    with memory_kept(torch.device("cpu")):
        torch.full((BLOCK,), 1.0)
        kept = pages_fetched()
    usual = pages_fetched()
    assert kept < usual / 10


def test_memory_is_given_back_at_the_end() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with memory_kept(torch.device("cpu")):
        blocks = [torch.full((BLOCK,), 1.0) for _ in range(4)]
        del blocks
        within = resident()
    assert resident() < within - 2 * 4 * BLOCK


@pytest.mark.parametrize("size", [1 << 18, 1 << 21])
def test_smaller_blocks_are_used_again_afterwards_as_ever(size: int) -> None:
    with memory_kept(torch.device("cpu")):
        torch.full((BLOCK,), 1.0)
    torch.full((size,), 1.0)
    assert pages_fetched(size) < size * 4 / resource.getpagesize()  # they were fetched once, not ten times


def test_a_gpu_run_changes_nothing() -> None:
    with memory_kept(torch.device("cuda")):
        torch.full((BLOCK,), 1.0)
        within = pages_fetched()
    assert within > 10
