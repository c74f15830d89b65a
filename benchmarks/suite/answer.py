"""The setting of a question, and the tables of its answer."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .contenders import BY_NAME, Contender, before
from .duel import Rounds, Spread
from .processes import Server

NOISE = 1.1  # smaller ratios are noise on this kind of machine
TAIL_NOISE = 1.2  # the same for a p99


@dataclass
class Setting:
    """The options of a run.

    Attributes:
        command: The command as it was typed.
        rounds: The number of rounds that count.
        quick: Whether to use small numbers, to check that everything works.
        only: The contenders to compare; empty for all.
        points: The points of fanout to measure; empty for all.
        before: A commit whose library also competes, in every contender that is of this library.
    """

    command: str
    rounds: int = 15
    quick: bool = False
    only: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    before: str | None = None

    def contenders(self, names: Iterable[str]) -> list[Contender]:
        chosen = [BY_NAME[name] for name in names if not self.only or name in self.only]
        ours = (one for one in chosen if "PYTHONPATH" in one.environment)
        return chosen + ([before(self.before, one) for one in ours] if self.before else [])

    @contextlib.contextmanager
    def servers(self, names: Iterable[str], *variants: Contender) -> Iterator[list[Server]]:
        """Run the chosen contenders among these names, and all these variants."""
        with contextlib.ExitStack() as stack:
            yield [Server(one, stack) for one in (*self.contenders(names), *variants)]


def variant(contender: str, name: str, title: str, **environment: str) -> Contender:
    """Return a contender with another name and other variables."""
    plain = BY_NAME[contender]
    return replace(plain, name=name, title=title, environment={**plain.environment, **environment})


@dataclass
class Answer:
    """Tables in Markdown, and the rounds from which they were made."""

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
        """Compare with a target of the project; a value up to `allowed` still meets it, because of the noise."""
        allowed = limit if allowed is None else allowed
        met = "met" if found.middle <= allowed else "**missed**"
        within = f" (met up to {allowed:.3g})" if allowed != limit else ""
        self.say(f"Target: {what} at most {limit:g}{within}: {shown(found)}, {met}.")

    @property
    def markdown(self) -> str:
        return f"## {self.title}\n\n" + "\n\n".join(self.parts)


def shown(found: Spread, digits: int = 2) -> str:
    """Return the text of a median and its middle half."""
    return f"{number(found.middle, digits)} ({number(found.low, digits)}-{number(found.high, digits)})"


def number(value: float, digits: int = 2) -> str:
    return f"{value:,.{max(0, digits if abs(value) < 10 else digits - 1 if abs(value) < 100 else 0)}f}"


def title_of(name: str) -> str:
    return BY_NAME[name].title if name in BY_NAME else name


def against(rounds: Rounds, name: str, metric: str, titles: dict[str, str] | None = None) -> list[str]:
    """Return a row: the contender, its median, its ratio to raw ASGI, and the ratio of sse_asgi to it."""
    row = [(titles or {}).get(name) or title_of(name), shown(rounds.of(name, metric))]
    row.append(shown(rounds.ratio(name, "raw", metric)) if "raw" in rounds.names and name != "raw" else "1")
    if "ours" in rounds.names and name != "ours":
        ours = rounds.ratio("ours", name, metric)
        row.append(shown(ours) + (", better than sse_asgi" if ours.middle > NOISE else ""))
    else:
        row.append("1")
    return row
