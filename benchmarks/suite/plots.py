"""Plots of some of the answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .answer import Answer, title_of

mpl.use("Agg")
from matplotlib import pyplot as plt


def plot(answer: Answer, path: Path) -> bool:
    """Draw the plot of an answer; return False if it has none."""
    draw = DRAWN.get(answer.question)
    if draw is None:
        return False
    figure, axes = plt.subplots(figsize=(9, 5))
    draw(answer, axes)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return True


def _readers(answer: Answer, axes: Any) -> None:
    points = {int(point.split()[0].replace(",", "")): one for point, one in answer.rounds.items() if "reader" in point}
    for name in next(iter(points.values())).names:
        costs = [rounds.of(name, "us").middle for rounds in points.values()]
        width = 3 if name.startswith("ours") else 1
        axes.plot(list(points), costs, marker="o", linewidth=width, label=title_of(name))
    axes.set(xscale="log", yscale="log", xlabel="readers", ylabel="µs of CPU for each delivery", title=answer.title)
    axes.legend(fontsize="small")


def _quantiles(answer: Answer, axes: Any) -> None:
    rounds = answer.rounds["latency"]
    names = list(reversed(rounds.names))
    for shift, metric in ((-0.25, "p99"), (0, "p50"), (0.25, "p999")):
        values = [rounds.of(name, metric) for name in names]
        axes.barh(
            [place + shift for place in range(len(names))], [one.middle for one in values], height=0.25, label=metric
        )
    axes.set(xscale="log", xlabel="ms from publishing to the client's read", title=answer.title)
    axes.set_yticks(range(len(names)), [title_of(name) for name in names])
    axes.legend()


def _growth(answer: Answer, axes: Any) -> None:
    for kind, rounds in answer.rounds.items():
        sizes = [int(name.split()[0].replace(",", "")) for name in rounds.names]
        axes.plot(sizes, [rounds.of(name, "us").middle for name in rounds.names], marker="o", label=kind)
    axes.set(
        xscale="symlog", ylim=(0, None), xlabel="how many", ylabel="µs of CPU for each delivery", title=answer.title
    )
    axes.legend()


DRAWN: dict[str, Callable[[Answer, Any], None]] = {"fanout": _readers, "latency": _quantiles, "growth": _growth}
