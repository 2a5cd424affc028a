"""Progress of a job whose steps take very different times: one bar on a terminal, lines of text elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

SLOW = 1.5  # times the expected seconds


class Progress:
    """Shows which step runs, how far the whole job is, and how long it will still take.

    steps: name -> expected seconds on a free machine, in order. The remaining time is scaled by what the finished part
    really took; where that is much longer, it is said. stream: a terminal, or any file: then a line is written when a
    step starts and at every quarter of a step of a minute or more.
    """

    def __init__(self, steps: Mapping[str, float], stream: TextIO):
        self.steps, self.stream = dict(steps), stream
        self.total = sum(self.steps.values())
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}  # of the finished steps
        self.done = 0.0  # expected seconds of all that is finished
        self.bar = tqdm(total=self.total, file=stream, smoothing=0, dynamic_ncols=True, leave=False,
                        bar_format="{desc} |{bar}| {percentage:3.0f}%  {elapsed}, about {remaining} left") \
            if stream.isatty() else None

    @contextmanager
    def step(self, name: str, ticks: int) -> Iterator["Progress"]:
        """Run one step in the body; call `tick()` `ticks` times on the way."""
        heading = f"[{len(self.seconds) + 1}/{len(self.steps)}] {name}"
        self._unit, self._quarter, self._heading = self.steps[name] / ticks, 1, heading
        self._end, self._start = self.done + self.steps[name], self.done
        began = time.monotonic()
        self._began = began
        if self.bar is not None:
            self.bar.set_description(heading)
        else:
            self._line(heading + self._left())
        yield self
        self._advance(self._end - self.done)
        self.seconds[name] = time.monotonic() - began
        self._line(f"{heading}: done in {tqdm.format_interval(self.seconds[name])}")

    def tick(self) -> None:
        self._advance(min(self._unit, self._end - self.done))
        part = (self.done - self._start) / (self._end - self._start)
        if self.bar is None and self._quarter / 4 <= part < 1:
            self._quarter = int(part * 4) + 1
            if time.monotonic() - self._began > 15 * (self._quarter - 1):
                self._line(f"{self._heading}: {part:.0%}{self._left()}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _advance(self, expected_seconds: float) -> None:
        self.done += expected_seconds
        if self.bar is not None:
            self.bar.update(expected_seconds)

    def _left(self) -> str:
        elapsed = time.monotonic() - self.started
        if self.done == 0:
            return ""
        left = elapsed * (self.total - self.done) / self.done
        slower = elapsed / self.done
        why = f"; {slower:.0f} times as slow as two free cores" if slower >= SLOW and elapsed > 60 else ""
        return f" ({tqdm.format_interval(elapsed)} gone, about {tqdm.format_interval(left)} left{why})"

    def _line(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)
