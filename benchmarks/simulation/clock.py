"""Clock: runs stories side by side in virtual time."""

from collections.abc import Generator
from heapq import heappop, heappush
from itertools import count

Story = Generator[int, None, None]  # yields the time, in ms, at which it goes on


class Clock:
    """Runs the story whose time comes first up to its next sleep; `now` in ms. Equal times go by age."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._sleeping: list[tuple[int, int, Story]] = []
        self._number = count()

    def begin(self, story: Story, at: int) -> None:
        """Let a story begin at that time."""
        heappush(self._sleeping, (at, next(self._number), story))

    def run(self, until: float = float("inf")) -> None:
        """Run until then, or until all stories have come to their end."""
        while self._sleeping and self._sleeping[0][0] < until:
            self.now, _, story = heappop(self._sleeping)
            wakes = next(story, None)
            if wakes is not None:
                self.begin(story, max(wakes, self.now))
