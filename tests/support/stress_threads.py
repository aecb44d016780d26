"""Every way to end a run, at once, from many threads: `python -m tests.support.stress_threads 5`.

Threads sample on one denoiser with shared tokens, progress and graphs while others cancel, drop
their denoiser, raise from callbacks or miss deadlines, and the main thread gets Ctrl-C. A run that
completes must give the picture that it gives alone. `.ci/sanitize thread` runs this.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

import textopia_fast as tx
from tests.support.cheap_unet import TOKENS, cheap_unet

WIDTH = 8
TABLE = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")
TEXT = np.random.default_rng(0).standard_normal((2, 2, TOKENS, WIDTH), np.float32)
START = np.random.default_rng(1).standard_normal((2, 4, 8, 8), np.float32)
GRAPH = cheap_unet(WIDTH, repeat=3)


def program(sampler: str, steps: int) -> tx.Program:
    return tx.trace(sampler, tx.schedules.discrete(steps, TABLE))


class Stress:
    """The shared objects, and what the threads saw."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.denoiser = tx.Denoiser(GRAPH, threads=2, images_per_run=1)
        self.tokens = [tx.CancelToken() for _ in range(3)]
        self.progress = tx.Progress()
        self.stream = tx.Noise.torch([1, 2]).stream(2)
        names = ("euler", 40), ("euler_ancestral", 40), ("heun", 10), ("dpmpp_2m", 20)
        self.programs = [program(*name) for name in names]
        self.expected = [self.sample(self.denoiser, p) for p in self.programs]
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()

    def is_running(self) -> bool:
        return time.monotonic() < self.end

    def note(self, event: str) -> None:
        with self.lock:
            self.seen[event] += 1

    def sample(self, denoiser: tx.Denoiser, program: tx.Program, **options: object) -> np.ndarray:
        positive, negative = ({"encoder_hidden_states": half} for half in TEXT)
        noise = tx.Noise.philox([5, 6])
        return tx.sample(denoiser, START, program, positive, negative, 3.0, noise, **options)

    def sample_often(self, thread: int) -> None:
        chance = random.Random(thread)

        def fail(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
            if step == 2:
                raise KeyError(step)

        ways: list[Callable[[], dict[str, object]]] = [
            dict,
            lambda: {"on_step": lambda i, x, d: x if i % 2 else None, "wants_denoised": True},
            lambda: {"on_step": fail},
            lambda: {"deadline": chance.random() * 0.01},
        ]
        while self.is_running():
            k = chance.randrange(len(self.programs))
            is_own = chance.random() < 0.2
            denoiser = tx.Denoiser(GRAPH, threads=1) if is_own else self.denoiser
            options = chance.choice(ways)() | {"progress": self.progress}
            if chance.random() < 0.7:
                options["cancel"] = chance.choice(self.tokens)
            try:
                found = self.sample(denoiser, self.programs[k], **options)
            except (tx.GenerationCancelled, tx.DeadlineExceededError, KeyError) as error:
                self.note(type(error).__name__)
                continue
            if not is_own:  # another batching may round otherwise
                np.testing.assert_array_equal(found, self.expected[k])
            self.note("sample")

    def run_graph_often(self, thread: int) -> None:
        feeds = {"sample": START, "encoder_hidden_states": TEXT[0]}
        feeds["timestep"] = np.zeros((), np.float32)
        expected = self.denoiser.session.run(feeds)["out_sample"]
        while self.is_running():
            try:
                token = self.tokens[thread % 3]
                found = self.denoiser.session.run(feeds, cancel=token)["out_sample"]
                np.testing.assert_array_equal(found, expected)
                self.note("graph run")
            except tx.GenerationCancelled:
                self.note("graph run cancelled")

    def draw_often(self, _: int) -> None:
        while self.is_running():
            try:
                self.stream.draw(2, 5000)
                self.note("draw")
            except tx.InvalidRequestError:
                self.note("stream in use")
            time.sleep(0.001)

    def cancel_often(self, _: int) -> None:
        chance = random.Random(99)
        while self.is_running():
            time.sleep(chance.random() * 0.02)
            k = chance.randrange(3)
            token, self.tokens[k] = self.tokens[k], tx.CancelToken()
            token.cancel()
            assert token.cancelled
            assert 0 <= self.progress.steps_done <= 40

    def interrupt_often(self) -> None:
        """On the main thread, where Python handles signals."""
        long = program("euler", 1000)
        while self.is_running():
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                self.sample(self.denoiser, long)
                timer.join()
                time.sleep(0.05)
            except KeyboardInterrupt:
                self.note("KeyboardInterrupt")
            timer.join()


def main(seconds: float) -> None:
    stress = Stress(seconds)
    failures: list[BaseException] = []

    def guarded(work: Callable[[int], None], thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            failures.append(error)

    works = [stress.sample_often] * 5 + [stress.run_graph_often] * 2
    works += [stress.draw_often] * 2 + [stress.cancel_often]
    threads = [threading.Thread(target=guarded, args=(w, k)) for k, w in enumerate(works)]
    for thread in threads:
        thread.start()
    stress.interrupt_often()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    print(*(f"{count} {event}" for event, count in sorted(stress.seen.items())), sep=", ")


if __name__ == "__main__":
    main(float(sys.argv[1]))
