"""Timing side by side: all contenders of a row in one process, in turns (A B A B …), and the table of what came out."""

import importlib.metadata
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# Of the time spent on one contender, in seconds, and of the calls that it gets in one turn.
_BUDGET, _PER_TURN, _MOST_CALLS = 2.5, 0.3, 40
_TURNS = 7


class Target(NamedTuple):
    """What is to be reached: `slow` takes at least (or at most) `bound` times as long as `fast`."""

    slow: str
    fast: str
    at_least: float | None = None
    at_most: float | None = None


class Row(NamedTuple):
    """A piece of work and those who do it.

    **Fields:** `title`; `contenders`: functions that do the work once, to its end, by name, or the reason (text) why one
    cannot take part; `targets`; `notes`: further measured numbers, by name.
    """

    title: str
    contenders: dict[str, Callable[[], Any] | str]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(row: Row, *, smoke: bool) -> dict[str, Any]:
    """Seconds of every call, by contender, in turns; and what was missed out and why."""
    runners = {name: work for name, work in row.contenders.items() if not isinstance(work, str)}
    missing = {name: reason for name, reason in row.contenders.items() if isinstance(reason, str)}
    first = {name: seconds(work) for name, work in runners.items()}
    estimate = {name: 0.0 if smoke else seconds(work) for name, work in runners.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(1 if smoke else _TURNS):
        for name, work in runners.items():
            if turn >= 3 and sum(times[name]) > _BUDGET:
                continue
            calls = 1 if smoke else max(1, min(_MOST_CALLS, round(_PER_TURN / estimate[name])))
            times[name] += [seconds(work) for _ in range(calls)]
    return {
        "title": row.title,
        "first": first,
        "times": times,
        "missing": missing,
        "targets": [t._asdict() for t in row.targets],
        "notes": list(row.notes),
    }


def table(result: dict[str, Any]) -> str:
    """One row of the benchmark as Markdown."""
    medians = {name: statistics.median(times) for name, times in result["times"].items()}
    lines = [f"### {result['title']}", ""]
    lines += ["| | median | min | max | calls |", "| --- | --- | --- | --- | --- |"] if medians else []
    for name, times in result["times"].items():
        shown = " | ".join(_milliseconds(t) for t in (medians[name], min(times), max(times)))
        lines.append(f"| {name} | {shown} | {len(times)} |")
    lines += [f"| {name} | {reason} | | | |" for name, reason in result["missing"].items()]
    lines += [""] if medians else []
    for target in (Target(**fields) for fields in result["targets"]):
        if not {target.slow, target.fast} <= set(medians):
            continue
        ratio = medians[target.slow] / medians[target.fast]
        wanted = f"≤ {target.at_most:g}" if target.at_most is not None else f"≥ {target.at_least:g}"
        reached = (target.at_most is None or ratio <= target.at_most) and (
            target.at_least is None or ratio >= target.at_least
        )
        lines.append(f"- {target.slow} / {target.fast}: **{ratio:.3g}** ({wanted}{'' if reached else ', not reached'})")
    lines += [f"- {note}" for note in result["notes"]]
    return "\n".join(lines) + "\n"


def _milliseconds(t: float) -> str:
    return f"{1e3 * t:.3g} ms" if t < 1 else f"{t:.3g} s"


def versions(names: tuple[str, ...]) -> str:
    """The machine and the libraries, one line."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores; " + ", ".join(found) + "."


class PeakMemory:
    """The most memory that the process held while in this context, in bytes, beyond what it held at its start: `above`."""

    def __enter__(self) -> "PeakMemory":
        self.above, self._done = 0, threading.Event()
        self._base = _resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.above = max(self.above, _resident() - self._base)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


class Compiled:
    """How many programs were compiled in this context: `count`."""

    def __enter__(self) -> "Compiled":
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, name: str, *_: object, **__: object) -> None:
        self.count += name.endswith("backend_compile_duration")

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
