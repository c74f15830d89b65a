"""The examination as a whole, of a server whose answers the test writes; tests/proxies/test_doctor.py has real ones."""

import asyncio
import io
import json
import re
import sys

import pytest

from cli.conftest import Run
from cli.scripted import GOOD, Answer, Asked, Scripted
from sse_asgi._cli import doctor
from sse_asgi._cli.doctor import Examination, Plan, Report
from sse_asgi._cli.findings import Finding
from sse_asgi._cli.following import StreamError
from sse_asgi._cli.request import StreamRequest
from sse_asgi._cli.watch import Watch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The commands run on asyncio only."""
    return "asyncio"


class Stream:
    """Streams a ping every 0.1 s, numbers as events if it has ids, and publishes on a POST; a fault is an attribute."""

    def __init__(self, *, head: bytes = GOOD, gzip: bool = True, ids: bool = True, ends: bool = False) -> None:
        self.head, self.gzip, self.ids, self.ends = head, gzip, ids, ends
        self.silent = False

    async def __call__(self, asked: Asked, answer: Answer) -> None:
        if asked.method == "HEAD":
            await answer.refuse("200 OK")
            return
        await answer.begin(self.head)
        first = int(asked.headers.get("last-event-id", 0)) + 1
        for number in range(first, first + 100):
            held = self.silent or (asked.headers["accept-encoding"] == "gzip" and not self.gzip)
            if not held:
                await answer.send(b":\n" + (b"id: %d\ndata: x\n\n" % number if self.ids else b""))
            if self.ends:
                await answer.end()
                return
            await asyncio.sleep(0.1)


async def examine(url: str, direct: str | None = None, *, wait: float = 1.2, publish: str | None = None) -> Report:
    request = StreamRequest.of(url)
    return await Examination(
        Plan(request, None if direct is None else StreamRequest.of(direct), wait, publish=publish)
    ).run()


def codes(report: Report) -> list[str]:
    return [one.code for one in report.findings]


async def test_a_good_stream() -> None:
    """Nothing is found, with or without a direct URL; what was not tried is said."""
    with Scripted(Stream()) as server:
        report = await examine(server.url)
        assert (report.findings, len(report.watches)) == ([], 2)
        assert [note.partition(" ")[0] for note in report.notes] == ["CORS", "without", "a"]
        report = await examine(server.url, server.url)
        assert (report.findings, len(report.watches)) == ([], 4)


async def test_compression_is_judged_at_the_direct_url_first() -> None:
    """What the application holds back is not a fault of the proxy."""
    with Scripted(Stream(gzip=False)) as wrong, Scripted(Stream()) as good:
        report = await examine(wrong.url, good.url)
        assert (codes(report), "in the proxy" in report.findings[0].fix) == (["buffering-gzip"], True)
        report = await examine(wrong.url, wrong.url)
        assert (codes(report), "GZipMiddleware" in report.findings[0].fix) == (["buffering-gzip"], True)


async def test_a_silent_stream_is_noted() -> None:
    """If nothing can be compared."""
    stream = Stream()
    stream.silent = True
    with Scripted(stream) as server:
        report = await examine(server.url)
    assert codes(report) == []
    assert "nothing arrived, so buffering cannot be judged: give --publish or a longer --wait" in report.notes


async def test_what_a_command_publishes_must_arrive() -> None:
    """The command runs three times."""
    stream = Stream()
    stream.silent = True
    with Scripted(stream) as server, Scripted(Stream()) as other:
        report = await examine(server.url, wait=2.5, publish=f"curl -sfI {other.url}")
        assert codes(report) == ["buffering"]
        assert [asked.method for asked in other.asked] == ["HEAD"] * 3


async def test_a_command_that_fails_ends_it() -> None:
    """With its exit code."""
    with Scripted(Stream()) as server:
        with pytest.raises(StreamError, match=r"^the command of --publish ended with exit code 7$"):
            await examine(server.url, publish="exit 7")


async def test_without_a_stream_nothing_else_is_said() -> None:
    """Neither of HEAD nor of CORS."""
    with Scripted(Stream(head=b"HTTP/1.1 500 Oops\r\n", ends=True)) as wrong, Scripted(Stream()) as good:
        report = await examine(wrong.url, good.url)
    assert (codes(report), report.notes) == (["status"], [])


async def test_a_stream_that_ends_is_noted() -> None:
    """It may be finite; its address may begin with https."""
    with Scripted(Stream(ends=True)) as server:
        request = StreamRequest.of(server.url, method="POST", headers=["Cookie: a=b"])
        report = await Examination(Plan(request, None, 1.2)).run()
        assert "resuming was not tried, because the request is not a GET" in report.notes
        report = await examine(server.url)
        assert any(re.fullmatch(r"the stream ended by itself after 0\.\d s", note) for note in report.notes)


async def test_tls_is_not_noted() -> None:
    """There HTTP/2 is judged."""
    examination = Examination(Plan(StreamRequest.of("https://127.0.0.1:1/"), None, 1.0))
    examination._note()
    assert examination._report.notes == [
        "nothing arrived, so buffering cannot be judged: give --publish or a longer --wait"
    ]


# Output


def test_the_report_is_printed(run: Run) -> None:
    """The findings in plain words, with exit code 1."""
    with Scripted(Stream(head=GOOD.replace(b"no-cache, no-transform", b"public"), ids=False)) as server:
        code, output, errors = run("doctor", server.url, "--wait", "1")
    assert (code, errors) == (1, f"Watching {server.url} for 1 s ...\n")
    lines = output.splitlines()
    assert lines[0].startswith(f"{server.url}: 200, HTTP/1.1, head after 0.0")
    assert lines[1:5] == [
        "",
        f"✗ cache-control  {server.url}",
        "  Cache-Control is public, so a cache may keep the stream, and wait for its end.",
        "  Send Cache-Control: no-cache, no-transform.",
    ]
    assert lines[-1] == "1 problem found"


def test_json_is_one_object(run: Run) -> None:
    """Without findings the exit code is 0, and nothing else is printed."""
    with Scripted(Stream(ids=False)) as server:
        code, output, errors = run("doctor", server.url, "--json", "--wait", "1", "--direct", server.url)
    values = json.loads(output)
    assert (code, errors, values["findings"]) == (0, "", [])
    assert [one["accept_encoding"] for one in values["streams"]] == ["identity", "gzip"] * 2


def test_a_report_without_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Several problems are counted; control characters of a server are escapes."""
    watch = Watch(StreamRequest.of("http://127.0.0.1:1/"))
    doctor.show(Report([Finding("a", "b", "\x1b", "d")] * 2, [], [watch]))
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[3], lines[-1]) == ("http://127.0.0.1:1/: no answer", "  \\x1b.", "2 problems found")
    doctor.show(Report())
    assert capsys.readouterr().out == "\nNo problems found\n"


async def test_a_terminal_has_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the seconds, the events and the pings so far."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Scripted(Stream()) as server:
        await examine(server.url)
    assert "of 1.2 s, " in terminal.getvalue()
