"""Measure the time and the memory of calls, side by side in one process."""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["peak_memory", "slowest_operations", "take_turns"]


def slowest_operations(
    call: Callable[[], object], device: str, count: int
) -> list[tuple[str, float, int]]:
    """Return the PyTorch operations that take most of the time of a call, without nested ones.

    Args:
        call: run once to warm up, and once to be measured.
        device: "cpu" or "cuda".
        count: number of operations to return.

    Returns:
        (name, share of the time of all operations, number of calls), the slowest first.
    """
    call()
    activity = ProfilerActivity.CPU if device == "cpu" else ProfilerActivity.CUDA
    with profile(activities=[activity]) as profiler:
        call()
    field = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    spent = [(event.key, getattr(event, field), event.count) for event in profiler.key_averages()]
    total = sum(time for _, time, _ in spent)
    spent.sort(key=lambda row: row[1], reverse=True)
    return [(name, time / total, calls) for name, time, calls in spent[:count]]


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Return the peak number of bytes that PyTorch allocates during a call, beyond earlier ones.

    On a CPU it is the largest running sum of the allocations and releases that the profiler
    records; on a GPU the caching allocator counts.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    events = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(itertools.accumulate((e.nbytes() for e in events), initial=0))


def take_turns(calls: dict[str, Callable], repeats: int, device: str) -> dict[str, dict]:
    """Time calls in turns, so that other load on the machine falls on all of them.

    Args:
        calls: by name, without arguments.
        repeats: timed rounds, after one to warm up.
        device: "cpu" or "cuda".

    Returns:
        For each name the "median", "min" and "max" in seconds.
    """
    seconds = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            spent = _time(call, device)
            if turn:  # the first warms up
                seconds[name].append(spent)
    return {
        name: {"median": statistics.median(s), "min": min(s), "max": max(s)}
        for name, s in seconds.items()
    }


def _time(call, device):
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start
