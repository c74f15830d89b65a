"""Rounds in which contenders take turns, and their result: medians of the ratios within the rounds."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

Values = dict[str, float]


class Spread(NamedTuple):
    """The middle half of some values."""

    low: float
    middle: float
    high: float


def spread(values: list[float]) -> Spread:
    ranked = sorted(values)
    return Spread(ranked[len(ranked) // 4], statistics.median(ranked), ranked[-1 - len(ranked) // 4])


class Rounds:
    """The cost of each contender in each round."""

    def __init__(self, rounds: list[dict[str, Values]]) -> None:
        self.rounds = rounds

    @property
    def names(self) -> list[str]:
        return list(self.rounds[0])

    def of(self, name: str, metric: str) -> Spread:
        return spread([one[name][metric] for one in self.rounds])

    def ratio(self, name: str, other: str, metric: str, other_metric: str | None = None) -> Spread:
        """Compare within the rounds, because the speed of the machine changes between them."""
        pairs = [(one[name][metric], one[other][other_metric or metric]) for one in self.rounds]
        return spread([mine / max(theirs, 1e-9) for mine, theirs in pairs])


class Progress:
    """A line of plain text on stderr."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps, self.done, self.began = title, steps, 0, time.monotonic()

    def show(self, what: str) -> None:
        filled = 30 * self.done // self.steps
        line = f"{self.title} [{'#' * filled}{'.' * (30 - filled)}] {self.done}/{self.steps} {what}"
        print(f"\r{line:100.100}", end="", file=sys.stderr, flush=True)

    def step(self) -> None:
        self.done += 1
        if self.done == self.steps:
            self.show(f"in {time.monotonic() - self.began:.0f} s")
            print(file=sys.stderr)


def duel(title: str, rounds: int, turns: dict[str, Callable[[], Values]]) -> Rounds:
    """Give every contender a turn in each round, in a new order; the first round is for warming up."""
    names = list(turns)
    found: list[dict[str, Values]] = []
    progress = Progress(title, len(names) * (rounds + 1))
    for number in range(rounds + 1):
        order = names[number % len(names) :] + names[: number % len(names)]
        values: dict[str, Values] = {}
        for name in order if number % 2 else reversed(order):
            progress.show(name)
            values[name] = turns[name]()
            progress.step()
        if number:
            found.append({name: values[name] for name in names})
    return Rounds(found)
