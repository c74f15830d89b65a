"""Frames of the encoder, as browsers read them."""

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page
from starlette.responses import Response, StreamingResponse

from browser.peers import Wire
from sse_asgi.decoder import DecodedEvent, EventDecoder
from sse_asgi.encoder import encode

STREAM = "text/event-stream"

# Opens an EventSource, and returns the events that it dispatched before the one of type `done`.
READ = """([url, types]) => new Promise((resolve, reject) => {
  const source = new EventSource(url), seen = [];
  const note = event => event instanceof MessageEvent && seen.push([event.type, event.data, event.lastEventId]);
  for (const type of types) source.addEventListener(type, note);
  source.addEventListener("done", () => { source.close(); resolve(seen); });
  source.addEventListener("error", event => {
    if (!(event instanceof MessageEvent)) { source.close(); reject("ended before it was done"); }
  });
})"""


class Fields(NamedTuple):
    """The fields of one frame."""

    data: str | None = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None


TABLE = [
    Fields("plain"),
    Fields(""),
    Fields("\n"),
    Fields("\r\n\r\n"),
    Fields("a\nb\rc\r\nd\n\re"),
    Fields("ends\n"),
    Fields("\nbegins"),
    Fields(" one space"),
    Fields("   three spaces   "),
    Fields("\ttab\t"),
    Fields(": no comment"),
    Fields("data: no field\nid: none\nretry: 1"),
    Fields("\u2028 \u2029 \x85 \x0b \x0c \x1c are no line ends"),
    Fields("NUL \0 NUL"),
    Fields("\ufeff no byte order mark \ufeff"),
    Fields("emoji 😀 👩‍👩‍👧 and ﷽"),
    Fields("x" * 100_000),
    Fields("é\n" * 5_000),
    Fields("typed", event="update"),
    Fields("typed", event=" leading space"),
    Fields("typed", event="colon: and ünïcode 😀"),
    Fields("typed", event="NUL \0"),
    Fields("typed", event="error"),
    Fields("typed", event="open"),
    Fields("typed", event="message"),
    Fields("with id", id="1"),
    Fields("the id stays"),
    Fields(id="id-only"),
    Fields("an id without data counts"),
    Fields(event="never", id="2", comment="no data, no event"),
    Fields("its type is gone"),
    Fields("reset", id=""),
    Fields("ids may be anything", id='é€😀 {"a": 1} \u2028:'),
    Fields("commented", comment="one\r\ntwo\rthree\n"),
    Fields("", comment="", event="empty", id="3", retry=60_000),
    Fields(comment="alone"),
    Fields("timed", retry=0),
    Fields("timed", retry=86_400_000),
]

PIECES = [
    "",
    "\r",
    "\n",
    "\r\n",
    "\u2028",
    "\0",
    " ",
    "  ",
    ":",
    "data:",
    "id: 1",
    "😀",
    "é",
    "\ufeff",
    "\t",
    "word",
    "0",
]


def random_fields(seed: int) -> Fields:
    dice = random.Random(seed)

    def text(*without: str) -> str:
        pieces = [piece for piece in PIECES if not any(part in piece for part in without)]
        return "".join(dice.choices(pieces, k=dice.randrange(8)))

    return Fields(
        data=text() if dice.random() < 0.9 else None,
        event=text("\r", "\n") or None if dice.random() < 0.5 else None,
        id=text("\r", "\n", "\0").strip(" \t") if dice.random() < 0.5 else None,
        retry=dice.randrange(100_000) if dice.random() < 0.2 else None,
        comment=text() if dice.random() < 0.2 else "always one field",
    )


CASES = [*TABLE, *map(random_fields, range(150))]


def went_in(cases: list[Fields]) -> Iterator[DecodedEvent]:
    """Return the events that a reader should see. CR LF and CR become LF, the last id stays, a frame needs data."""
    last = ""
    for case in cases:
        last = last if case.id is None else case.id
        if case.data is not None:
            data = case.data.replace("\r\n", "\n").replace("\r", "\n")
            yield DecodedEvent(case.event or "message", data, last)


@pytest.fixture
def page(browser: Browser, wire: Wire) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(wire.url)
        yield page


def read(page: Page, wire: Wire, path: str, cases: list[Fields]) -> list[DecodedEvent]:
    types = sorted({"message", *(case.event for case in cases if case.event)})
    seen = page.evaluate(READ, [f"{wire.url}{path}", types])
    return [DecodedEvent(*event) for event in seen]


def test_the_browser_dispatches_the_encoded_events(page: Page, wire: Wire) -> None:
    """Chromium and EventDecoder read the type, data and lastEventId of every event as they were written."""
    body = b"".join(encode(**case._asdict()) for case in CASES)
    wire.answers["/cases"] = lambda _: Response(body + encode("", event="done"), media_type=STREAM)
    expected = list(went_in(CASES))
    assert EventDecoder().feed(body) == expected
    assert read(page, wire, "/cases", CASES) == expected


def test_the_browser_does_not_mind_how_the_bytes_are_cut(page: Page, wire: Wire) -> None:
    """Chunks may end anywhere, also within lines and characters: the events are the same."""
    cases = [case for case in CASES if len(case.data or "") < 1000]
    body = b"".join(encode(**case._asdict()) for case in cases) + encode("", event="done")
    dice = random.Random(0)
    cuts = sorted({0, len(body), *dice.sample(range(len(body)), 200)})
    chunks = [body[start:end] for start, end in itertools.pairwise(cuts)]
    wire.answers["/cut"] = lambda _: StreamingResponse(iter(chunks), media_type=STREAM)
    decoder = EventDecoder()
    expected = list(went_in(cases))
    assert [event for chunk in chunks for event in decoder.feed(chunk)][:-1] == expected
    assert read(page, wire, "/cut", cases) == expected


def test_an_id_alone_moves_where_the_browser_resumes(page: Page, wire: Wire) -> None:
    """Chromium follows the standard; Firefox and WebKit ignore such a frame, and the library does not write one."""
    first = b"retry: 50\n" + encode("seen", id="a-1") + encode(id="a-2")
    answers = iter([first, encode("", event="done")])
    wire.answers["/resume"] = lambda _: Response(next(answers), media_type=STREAM)
    page.evaluate(
        """url => {
          window.got = [];
          window.source = new EventSource(url);
          source.onmessage = event => got.push([event.data, event.lastEventId]);
          source.addEventListener("done", event => { source.close(); got.push(["done", event.lastEventId]); });
        }""",
        f"{wire.url}/resume",
    )
    page.wait_for_function("got.length > 1")
    assert page.evaluate("got") == [["seen", "a-1"], ["done", "a-2"]]
    assert [last for _, last in wire.asked("/resume")] == [None, "a-2"]
