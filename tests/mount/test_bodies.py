"""Request bodies: the content of each media type, and the bodies that are refused."""

import sys

import pytest

from mount.posts import FORM, JSON, PARTS, TEXT, form, kept, post, posted

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ("a text\nof two lines ", TEXT, (None, "a text\nof two lines ")),
        ("é", "Text/Plain; charset=UTF-8", (None, "é")),
        ('{"a": [1, null]}', JSON, (None, '{"a":[1,null]}')),
        ('"text"', JSON, (None, "text")),
        ("0", JSON, (None, "0")),
        ("false", JSON, (None, "false")),
        ("data=a+b%26c%C3%A9", FORM, (None, "a b&cé")),
        ("data=x&event=said&other=y", FORM, ("said", "x")),
        (form(("data", "é\nx"), ("other", "y")), PARTS, (None, "é\nx")),
        (form(("event", "said"), ("data", "x=1&y")), PARTS, ("said", "x=1&y")),
        (form(("data", "--limi\r\n\r\nx")), PARTS.replace("limit", '"limit"'), (None, "--limi\r\n\r\nx")),
    ],
)
async def test_bodies(body: bytes | str, kind: str, expected: tuple[str | None, str]) -> None:
    """A text and a JSON value are the data; a form has a field of it, and may name the type."""
    async with posted() as (hub, client):
        assert (await post(client, body, kind)).status == 202
        assert await kept(hub) == [expected]


@pytest.mark.parametrize(
    ("body", "kind", "hint"),
    [
        ("", TEXT, "no data"),
        (b"\xff", TEXT, "utf-8"),
        ("", JSON, "Expecting value"),
        ("{", JSON, "Expecting"),
        ("null", JSON, "no data"),
        ('""', JSON, "no data"),
        ("NaN", JSON, "not JSON"),
        ('"\\ud800"', JSON, "surrogate"),
        (b'"\xff"', JSON, "utf-8"),
        ("[" * 60_000, JSON, "too deeply"),
        ("9" * 10_000, JSON, "digits"),
        ("x", FORM, "one field `data`"),
        ("data=1&data=2", FORM, "one field `data`"),
        ("data=1&event=2&event=3", FORM, "at most one `event`"),
        ("data=%ff", FORM, "utf-8"),
        ("data=1&event=sse.gap", FORM, "the library's own"),
        ("data=1&event=a%0Ab", FORM, "line ends"),
        ("data=1&channel=a%0Ab", FORM, "control characters"),
        ("x", "multipart/form-data", "boundary"),
        ("x", PARTS, "cannot be published"),
        ("", PARTS, "was cut off"),
        (form(("data", "x"))[:-5], PARTS, "was cut off"),
        (form(("data", "x"), ("event", "y"))[:-5], PARTS, "was cut off"),
        (form(("other", "x")), PARTS, "one field `data`"),
        (form(("data", "x")).replace(b"x", b"\xff"), PARTS, "utf-8"),
        (form(("data", "é")), f"{PARTS}; charset=us-ascii", "ascii"),
        (form(*[("other", "")] * 100, ("data", "x")), PARTS, "100"),
        (b"--limit\r\n" * 6_000, PARTS, "cannot be published"),
        ("other&" * 100 + "data=x", FORM, "fields"),
    ],
)
@pytest.mark.filterwarnings(  # Starlette before 0.47 leaves it to the garbage collector, and trio warns
    "ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"
)
async def test_a_bad_body_is_400(body: bytes | str, kind: str, hint: str) -> None:
    """The answer has the reason, and nothing is published."""
    async with posted(channels="*") as (hub, client):
        answer = await post(client, body, kind)
        assert answer.status == 400
        assert hint in answer.json["detail"]
        assert await kept(hub) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"kind": "text/html"},
        {"kind": ""},
        {"kind": "application/problem+json"},
        {"kind": "text/plain; charset=latin-1"},
        {"content_encoding": "gzip"},
    ],
)
async def test_other_bodies_are_415(headers: dict[str, str]) -> None:
    """The Content-Type must be known, and the body UTF-8 and not compressed."""
    async with posted() as (_, client):
        assert (await post(client, **headers)).status == 415


@pytest.mark.parametrize(
    "kind",
    [
        f"{JSON}; x*=a; x*0=b",
        f"{JSON}; x*{'1' * 200}=a",
        f"{JSON}; charset*=utf-8''x",
        f'{JSON}; x="a; charset=latin-1"',
        f"{JSON};;; ; charset=utf-8;charset=latin-1",
    ],
)
async def test_unknown_parameters_are_not_read(kind: str) -> None:
    """They may be continued, encoded or quoted; the first of two with one name counts."""
    async with posted() as (hub, client):
        assert (await post(client, "1", kind)).status == 202
        assert await kept(hub) == [(None, "1")]


async def test_a_long_content_type_is_415() -> None:
    """It is not parsed, because clients that may not publish send it as well."""
    async with posted() as (_, client):
        assert (await post(client, "1", JSON + ";" * 60_000)).status == 415


@pytest.mark.parametrize("odd", ["; x*=a; x*0=b", f"; x*{'1' * 900}=a", "; x=" + '"' * 900, ";" * 900])
async def test_a_field_may_have_other_parameters_and_headers(odd: str) -> None:
    """The name is read in any case, among other headers."""
    field = f'--limit\r\nX: y\r\ncontent-DISPOSITION: form-data; name="data"{odd}\r\n\r\nx\r\n--limit--\r\n'
    async with posted() as (hub, client):
        assert (await post(client, field, PARTS)).status == 202
        assert await kept(hub) == [(None, "x")]


async def test_no_content_type_is_415() -> None:
    """The type is not guessed."""
    async with posted() as (_, client), client.stream("/events/", method="POST", body=b"x") as answer:
        assert answer.status_code == 415
        assert b"application/json" in await answer.read()


@pytest.mark.parametrize("kind", [PARTS, "Multipart/Form-Data"])
async def test_without_python_multipart_a_form_in_parts_is_415(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer names the library, and nothing is published; the other form needs no library."""
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    async with posted() as (hub, client):
        answer = await post(client, form(("data", "x")), kind)
        assert answer.status == 415
        assert "python-multipart is not installed" in answer.json["detail"]
        assert await kept(hub) == []
        assert (await post(client, "data=x", FORM)).status == 202


def files(*names: str) -> bytes:
    return form(*((name, "é") for name in names)).replace(b'"\r\n\r\n', b'"; filename="a.txt"\r\n\r\n')


async def test_a_field_may_be_a_file() -> None:
    """Its text is the data."""
    async with posted() as (hub, client):
        assert (await post(client, files("data"), PARTS)).status == 202
        assert await kept(hub) == [(None, "é")]


async def test_files_count_as_fields() -> None:
    """There may be 100 of both."""
    async with posted() as (hub, client):
        parts = form(*[("other", "")] * 60)[: -len("--limit--\r\n")] + files("data", *["other"] * 40)
        answer = await post(client, parts, PARTS)
        assert (answer.status, "at most 100 fields (got 101)" in answer.json["detail"]) == (400, True)
        assert await kept(hub) == []


async def test_a_form_may_be_larger_than_starlettes_usual_part() -> None:
    """Only `max_body_bytes` bounds it."""
    async with posted(max_body_bytes=3 << 20) as (hub, client):
        assert (await post(client, form(("data", "x" * (2 << 20))), PARTS)).status == 202
        assert await kept(hub) == [(None, "x" * (2 << 20))]
