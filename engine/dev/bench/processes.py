"""What our processes cost: CPU seconds and resident memory, read from /proc."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Event, Thread

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_KNOWN = {
    "kafka.Kafka": "kafka",
    "engine.dev.store": "store",
    "engine.dev.bench.receiver": "(receiver)",
    "engine.dev.bench.publisher": "(publisher)",
}
"""Words of a command line that name its process; in brackets what is not ours to improve."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU since its start (seconds) and resident memory (bytes) of one process."""

    cpu_s: float
    rss: int


def snapshot(root: int) -> dict[str, Usage]:
    """Usage by name of a process and everything below it; processes of one name are added up."""
    children = defaultdict(list)
    for pid, parent in _parents().items():
        children[parent].append(pid)
    found: dict[str, Usage] = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        todo += children[pid]
        if (one := _usage(pid)) is not None:
            name = _name(pid) if pid != root else "(bench)"
            before = found.get(name, Usage(0, 0))
            found[name] = Usage(before.cpu_s + one.cpu_s, before.rss + one.rss)
    return found


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """CPU seconds by name; a process that was not there before counts from its start."""
    return {name: now.cpu_s - before.get(name, Usage(0, 0)).cpu_s for name, now in after.items()}


def _fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, from the state on; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parents() -> dict[int, int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid: int(fields[1]) for pid in pids if (fields := _fields(pid))}


def _usage(pid: int) -> Usage | None:
    fields = _fields(pid)
    return Usage((int(fields[11]) + int(fields[12])) * _TICK_S, int(fields[21]) * _PAGE) if fields else None


def _name(pid: int) -> str:
    """`hooklog run router` is `router`; others by what is known of their command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "(ended)"
    known = [_KNOWN[word] for word in words if word in _KNOWN]
    if known:
        return known[0]
    if "run" in words:
        return "+".join(word for word in words[words.index("run") + 1 :] if word.isalpha()) or "run"
    return Path(words[0]).name


@dataclass(frozen=True, slots=True)
class Trend:
    """Resident memory of one process over time: means of the first and last tenth, largest, slope."""

    first_mb: float
    last_mb: float
    largest_mb: float
    growth_mb: float
    """In ten minutes, between the middles of the first and the last tenth."""


Sample = tuple[float, Mapping[str, Usage]]
"""When (monotonic seconds), and everybody's usage."""


@contextmanager
def sampling(root: int, every_s: float) -> Iterator[list[Sample]]:
    """Look at everybody's usage every so often, on a thread, until the block ends."""
    samples: list[Sample] = []
    over = Event()

    def watch() -> None:
        while not over.wait(every_s):
            samples.append((time.monotonic(), snapshot(root)))

    thread = Thread(target=watch, name="sampling")
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def trends(samples: Sequence[Sample]) -> dict[str, Trend]:
    """How memory went, for every process that was there from the first sample to the last."""
    if not samples:
        return {}
    names = set.intersection(*(set(usage) for _, usage in samples))
    times = [at for at, _ in samples]
    return {name: _trend(times, [usage[name].rss / _MB for _, usage in samples]) for name in sorted(names)}


def _trend(times: Sequence[float], sizes: Sequence[float]) -> Trend:
    tenth = max(len(sizes) // 10, 1)
    first, last = fmean(sizes[:tenth]), fmean(sizes[-tenth:])
    between = fmean(times[-tenth:]) - fmean(times[:tenth])
    return Trend(first, last, max(sizes), (last - first) / between * 600 if between else 0)


def machine() -> str:
    """Cores and CPU model, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return f"{os.cpu_count()} cores, {', '.join(sorted(models)) or 'unknown model'}"
