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
    really took; where that is much longer, it is said. stream: a terminal, or any file: then there are only the lines
    written when a step starts and ends.
    """

    def __init__(self, steps: Mapping[str, float], stream: TextIO):
        self.steps, self.stream = dict(steps), stream
        self.started = time.monotonic()
        self.done = 0.0  # expected seconds of all that is finished
        self.bar = tqdm(total=sum(steps.values()), file=stream, smoothing=0, dynamic_ncols=True, leave=False,
                        disable=not stream.isatty(),
                        bar_format="{desc} |{bar}| {percentage:3.0f}%  {elapsed}, about {remaining} left")

    @contextmanager
    def step(self, name: str, ticks: int = 1) -> Iterator[None]:
        """Run one step in the body; call `tick()` up to `ticks` times on the way."""
        heading = f"[{list(self.steps).index(name) + 1}/{len(self.steps)}] {name}"
        began, end = time.monotonic(), self.done + self.steps[name]
        self._tick, self._end = self.steps[name] / ticks, end
        self.bar.set_description(heading)
        if self.bar.disable:
            self._line(heading + self._left())
        yield
        self._advance(end - self.done)
        self._line(f"{heading}: done in {tqdm.format_interval(time.monotonic() - began)}")

    def tick(self) -> None:
        self._advance(min(self._tick, self._end - self.done))

    def _advance(self, expected_seconds: float) -> None:
        self.done += expected_seconds
        self.bar.update(expected_seconds)

    def _left(self) -> str:
        if self.done == 0:
            return ""
        elapsed = time.monotonic() - self.started
        slower = elapsed / self.done
        left = slower * (sum(self.steps.values()) - self.done)
        why = f"; {slower:.0f} times as slow as two free cores" if slower >= SLOW and elapsed > 60 else ""
        return f" ({tqdm.format_interval(elapsed)} gone, about {tqdm.format_interval(left)} left{why})"

    def _line(self, text: str) -> None:
        self.bar.write(text, file=self.stream)
        self.stream.flush()
