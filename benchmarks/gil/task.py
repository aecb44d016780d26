"""Speed of a Python thread that counts, alone and beside a sampling run of one thread.

With two cores or more the count should not notice the run. 1.0 is a run that never holds the
interpreter; a pure Python loop beside it would leave about 0.5.
"""

from __future__ import annotations

import statistics
import threading
import time

from benchmarks.gil import diffusers_ort, ours
from benchmarks.report import Report, number
from benchmarks.timing import NotInstalledError, one_torch_thread, summarize

# Seconds of one run alone. diffusers' is short, because beside another thread it takes two hundred
# times as long: every return from a native call waits for the interpreter, up to 5 ms each.
COMPETITORS = {ours: 0.5, diffusers_ort: 0.02}


class Counter:
    """Counts in a thread of its own until stopped."""

    def __enter__(self) -> Counter:
        self.count = 0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run)
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._is_stopped:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        self._thread.join()
        self.per_second = self.count / (time.perf_counter() - self._start)


def count_alone(seconds: float) -> float:
    with Counter() as counter:
        time.sleep(seconds)
    return counter.per_second


def count_beside(run) -> tuple[float, float]:
    """(counts per second, seconds of the run)."""
    start = time.perf_counter()
    with Counter() as counter:
        run()
        seconds = time.perf_counter() - start
    return counter.per_second, seconds


def run(quick: bool = False) -> Report:
    report = Report(
        "gil",
        "Python beside a run: speed of a counting thread, and of the run, against each alone",
        ["competitor", "the run alone, ms", "counting thread", "the run"],
    )
    rounds = 3 if quick else 11
    with one_torch_thread():
        count_alone(1.0)  # warm-up of the counting loop
        for module, seconds in COMPETITORS.items():
            try:
                work = module.make(seconds)
            except NotInstalledError as error:
                report.add(module.NAME, *[str(error)] * 3)
                continue
            _measure(report, module.NAME, work, rounds)
    report.notes += [
        "1.0: as fast as alone. One thread each, so two cores are needed.",
        "A Python loop waits for the interpreter, up to 5 ms, at every return from native code "
        "while another thread keeps it busy; the native loop returns once.",
    ]
    return report


def _measure(report: Report, name: str, work, rounds: int) -> None:
    thread_shares, run_shares, alones = [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        alone = time.perf_counter() - start
        counts_alone = count_alone(0.5)
        counts, seconds = count_beside(work)
        thread_shares.append(counts / counts_alone)
        run_shares.append(alone / seconds)
        alones.append(alone)
    medians = map(statistics.median, (thread_shares, run_shares))
    report.add(name, number(summarize(alones).median), *map(number, medians))
    report.data[name] = {
        "alone_ms": summarize(alones).to_dict(),
        "thread_share": summarize([share / 1e3 for share in thread_shares]).to_dict(),
        "run_share": summarize([share / 1e3 for share in run_shares]).to_dict(),
    }
