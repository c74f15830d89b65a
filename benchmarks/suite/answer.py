"""What a question is asked with, and the tables of its answer."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .contenders import BY_NAME, Contender, before
from .duel import Rounds, Spread
from .processes import Server

NOISE = 1.1  # ratios up to here say nothing, on this kind of machine
TAIL_NOISE = 1.2  # the same of a p99


@dataclass
class Setting:
    """How the questions are asked.

    Attributes:
        command: What was asked, as it was typed.
        rounds: How many rounds count.
        quick: Whether small numbers will do, to see that everything works.
        only: The contenders to compare, or none for all that suit.
        points: The points of fanout to measure, or none for all.
        before: A commit whose library also competes.
    """

    command: str
    rounds: int = 15
    quick: bool = False
    only: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    before: str | None = None

    def contenders(self, names: Iterable[str]) -> list[Contender]:
        chosen = [BY_NAME[name] for name in names if not self.only or name in self.only]
        return chosen + ([before(self.before)] if self.before else [])

    @contextlib.contextmanager
    def servers(self, names: Iterable[str], *variants: Contender) -> Iterator[list[Server]]:
        """Run contenders of these names that were chosen, and variants of them in any case."""
        with contextlib.ExitStack() as stack:
            yield [Server(one, stack) for one in (*self.contenders(names), *variants)]


def variant(contender: str, name: str, title: str, **environment: str) -> Contender:
    """Return a contender under another name, and with other variables."""
    plain = BY_NAME[contender]
    return replace(plain, name=name, title=title, environment={**plain.environment, **environment})


@dataclass
class Answer:
    """Tables in Markdown, and the rounds behind them."""

    question: str
    title: str
    parts: list[str] = field(default_factory=list)
    rounds: dict[str, Rounds] = field(default_factory=dict)

    def table(self, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        heads = list(heads)
        lines = [heads, ["---"] * len(heads), *map(list, rows)]
        self.parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def say(self, text: str) -> None:
        self.parts.append(text)

    def target(self, what: str, limit: float, found: Spread, allowed: float | None = None) -> None:
        """Compare with a target of the project; up to `allowed` it is met in spite of the noise."""
        allowed = limit if allowed is None else allowed
        met = "met" if found.middle <= allowed else "**missed**"
        within = f" (met up to {allowed:.3g})" if allowed != limit else ""
        self.say(f"Target: {what} at most {limit:g}{within}: {shown(found)}, {met}.")

    @property
    def markdown(self) -> str:
        return f"## {self.title}\n\n" + "\n\n".join(self.parts)


def shown(found: Spread, digits: int = 2) -> str:
    """Write a median and the middle half."""
    return f"{number(found.middle, digits)} ({number(found.low, digits)}-{number(found.high, digits)})"


def number(value: float, digits: int = 2) -> str:
    return f"{value:,.{max(0, digits if abs(value) < 10 else digits - 1 if abs(value) < 100 else 0)}f}"


def title_of(name: str) -> str:
    return BY_NAME[name].title if name in BY_NAME else name


def against(rounds: Rounds, name: str, metric: str, titles: dict[str, str] | None = None) -> list[str]:
    """Write one row: the contender, its median, its ratio to raw ASGI, and sse_asgi's to it."""
    row = [(titles or {}).get(name) or title_of(name), shown(rounds.of(name, metric))]
    row.append(shown(rounds.ratio(name, "raw", metric)) if "raw" in rounds.names and name != "raw" else "1")
    if "ours" in rounds.names and name != "ours":
        ours = rounds.ratio("ours", name, metric)
        row.append(shown(ours) + (", better than sse_asgi" if ours.middle > NOISE else ""))
    else:
        row.append("1")
    return row
