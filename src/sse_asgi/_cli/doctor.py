"""`sse-asgi doctor`: watches a deployed stream on several connections at once, and says what is wrong with it."""

import json
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

import anyio
from rich.text import Text

from . import findings, probes
from .findings import Finding
from .following import StreamError
from .probes import Outcome
from .request import StreamRequest
from .screen import printable, progress, results
from .watch import COMPLETE, Watch

PUBLISHES = 3
BETWEEN_PUBLISHES = 1.0


@dataclass(frozen=True)
class Plan:
    """What to examine, and how.

    Attributes:
        request: The stream at its public URL.
        direct: The same stream without proxies, or None.
        wait: How long to watch the streams, in seconds.
        origin: The origin of pages that read the stream, or None.
        publish: A command that publishes an event, or None.
        restart: A command that restarts the application, or None.
    """

    request: StreamRequest
    direct: StreamRequest | None
    wait: float
    origin: str | None = None
    publish: str | None = None
    restart: str | None = None


@dataclass
class Report:
    """The result of an examination."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add what a probe has found."""
        self.findings += outcome.findings
        self.notes += outcome.notes


class Examination:
    """One examination of a stream; a stream is watched with and without compression, at each of the URLs."""

    def __init__(self, plan: Plan) -> None:
        """Prepare the connections."""
        self._plan = plan
        self._url = Watch(plan.request)
        self._zipped = Watch(plan.request, encoding="gzip")
        self._direct = None if plan.direct is None else Watch(plan.direct)
        self._direct_zipped = None if plan.direct is None else Watch(plan.direct, encoding="gzip")
        self._published: list[float] = []
        self._failure = ""
        self._watching = True
        self._report = Report()

    async def run(self) -> Report:
        """Watch, probe and judge.

        Raises:
            StreamError: A command of the user failed.
        """
        watches = [self._url, self._zipped, self._direct, self._direct_zipped]
        self._report.watches = [one for one in watches if one is not None]
        await self._watch()
        if self._failure:
            raise StreamError(self._failure)
        if self._judge():
            self._report.add(await probes.resume(self._url, self._direct))
            self._report.add(await probes.restart(self._plan.request, self._plan.restart))
        return self._report

    async def _watch(self) -> None:
        plan = self._plan
        async with anyio.create_task_group() as others:
            others.start_soon(self._show_progress)
            if plan.publish is not None:
                others.start_soon(self._publish, plan.publish)
            async with anyio.create_task_group() as tasks:
                for watch in self._report.watches:
                    tasks.start_soon(watch.run, plan.wait)
                if plan.request.method == "GET":
                    tasks.start_soon(self._add, probes.head(plan.request))
                tasks.start_soon(self._add, probes.cors(plan.request, plan.origin))
            self._watching = False

    async def _add(self, probe: Awaitable[Outcome]) -> None:
        self._report.add(await probe)

    async def _publish(self, command: str) -> None:
        """Publish some events; the moments count from the command's end, when the server has the event."""
        await self._url.until(lambda: self._url.head or self._url.looked)
        for _ in range(PUBLISHES):
            await anyio.sleep(min(BETWEEN_PUBLISHES, self._plan.wait / (PUBLISHES + 2)))
            if self._watching and not self._failure:
                self._failure = await probes.shell(command, "--publish")
                self._published.append(time.monotonic())

    async def _show_progress(self) -> None:
        with progress("watching the stream") as shown:
            task = shown.add_task("", total=self._plan.wait)
            began = time.monotonic()
            while self._watching:
                seconds, pings = time.monotonic() - began, sum(one.pings for one in self._url.arrivals)
                text = f"{seconds:.0f} of {self._plan.wait:g} s, {len(self._url.events)} events, {pings} pings"
                shown.update(task, completed=seconds, description=text)
                await anyio.sleep(0.1)

    def _judge(self) -> bool:
        """Judge the watched streams; return False if there is no stream."""
        url, direct, report = self._url, self._direct, self._report
        no_stream = findings.of_answer(url, direct) + ([] if direct is None else findings.of_answer(direct))
        if no_stream:
            report.findings, report.notes = no_stream, []
            return False
        found = [*findings.of_headers(url, direct), *findings.of_http_version(url)]
        held = findings.of_buffering(url, direct, self._published)
        found += held or self._judge_compression()
        if direct is not None and not held:
            found += findings.of_delay(url, direct)
        found += findings.of_end(url, direct)
        found += [] if held else findings.of_silence(url)
        report.findings[:0] = found
        self._note()
        return True

    def _judge_compression(self) -> list[Finding]:
        if self._direct is not None and self._direct_zipped is not None:
            found = findings.of_compression(self._direct, self._direct_zipped, direct=True)
            if found:
                return found
        return findings.of_compression(self._url, self._zipped, direct=False)

    def _note(self) -> None:
        url = self._url
        if url.request.url.startswith("http:"):
            self._report.notes.append("without TLS a browser opens six connections to a host for all tabs together")
        if url.end == COMPLETE and not url.finished:
            self._report.notes.append(f"the stream ended by itself after {url.looked - url.began:.1f} s")
        if not url.arrivals and not any(one.code == "buffering" for one in self._report.findings):
            self._report.notes.append(
                "nothing arrived, so buffering cannot be judged: give --publish or a longer --wait"
            )


def show(report: Report) -> None:
    """Print a report in plain words."""
    output = results()
    for watch in report.watches[::2]:
        output.print(Text(_describe(watch), "dim"))
    for one in report.findings:
        output.print(Text.assemble("\n", ("✗ " + one.code, "bold red"), "  ", (printable(one.where), "bold")))
        output.print(f"  {printable(one.problem)}.\n  {one.fix}.")
    if report.notes:
        output.print("\nNot a fault, or not tried:")
    for note in report.notes:
        output.print(Text(f"- {printable(note)}", "dim"))
    count = len(report.findings)
    verdict = f"{count} problem{'s' if count > 1 else ''} found" if count else "No problems found"
    output.print(Text(f"\n{verdict}", "bold red" if count else "bold green"))


def _describe(watch: Watch) -> str:
    values = watch.summary()
    if watch.response is None:
        return f"{watch.request.url}: no answer"
    return (
        f"{watch.request.url}: {values['status']}, {values['http_version']}, head after {values['head_after']} s, "
        f"{values['events']} events and {values['pings']} pings in {values['watched']} s"
    )


def show_json(report: Report) -> None:
    """Print a report as one JSON object, for scripts."""
    values = {
        "findings": [one._asdict() for one in report.findings],
        "notes": report.notes,
        "streams": [one.summary() for one in report.watches],
    }
    print(json.dumps(values, ensure_ascii=False, indent=2))  # noqa: T201


def print_report(report: Report, *, as_json: bool) -> int:
    """Print a report, and return the exit code: 1 with findings, else 0."""
    (show_json if as_json else show)(report)
    return 1 if report.findings else 0
