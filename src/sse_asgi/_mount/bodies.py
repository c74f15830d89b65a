"""Request bodies to the content of an event, by media type.

Reading a header or a body takes time in proportion to its length, because clients that may not publish send them too.
"""

import json
import re
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive

MAX_TYPE = 256
MAX_FIELDS = 100
FIELDS = ("data", "event", "channel")
CHARSETS = ("utf-8", "utf8", "us-ascii")
MULTIPART = "multipart/form-data"

# https://www.rfc-editor.org/rfc/rfc9110#name-parameters
PARAMETER = re.compile(r""";\s*([\w!#$%&'*+.^`|~-]+)=(?:"([^"]*)"|([^;\s]*))""")


class Content(NamedTuple):
    """The content of a body; only a form has an event type and channels."""

    data: Any
    event: str | None = None
    channels: tuple[str, ...] = ()


Reader = Callable[[bytes], Awaitable[Content]]


def reader(content_type: str) -> Reader:
    """Return the function that reads bodies of this type; it raises ValueError for a body that it cannot read.

    Raises:
        HTTPException: 415, there is no such function.
    """
    name = content_type.partition(";")[0].strip().lower()
    if name not in READERS or len(content_type) > MAX_TYPE:
        raise HTTPException(415, f"the Content-Type must be one of {', '.join(READERS)}")
    if name == MULTIPART and find_spec("python_multipart") is None:
        detail = f"{MULTIPART} cannot be read, because python-multipart is not installed on this server: "
        raise HTTPException(415, f"{detail}install it, or send application/x-www-form-urlencoded")
    if _charset(content_type) not in CHARSETS:
        raise HTTPException(415, "the body must be UTF-8: send it without a charset")
    return lambda body: READERS[name](body, content_type)


def replayed(body: bytes) -> Receive:
    """Return a `receive` that gives a body which was read before, once, and then a disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _charset(content_type: str) -> str:
    return _parameter(content_type, "charset", "utf-8").lower()


def _parameter(content_type: str, name: str, default: str) -> str:
    """Return the value of `; name=value`; the first of several counts."""
    parameters = {name.lower(): quoted or plain for name, quoted, plain in reversed(PARAMETER.findall(content_type))}
    value: str = parameters.get(name, default)
    return value


async def _from_text(body: bytes, _: str) -> Content:
    return Content(body.decode())


async def _from_json(body: bytes, _: str) -> Content:
    return Content(json.loads(body.decode()))


async def _from_query(body: bytes, _: str) -> Content:
    return _from_fields(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS))


async def _from_multipart(body: bytes, content_type: str) -> Content:
    """Read a form in parts, with Starlette's parser: https://www.rfc-editor.org/rfc/rfc7578."""
    body.decode(_charset(content_type))  # Starlette's parser would read other bytes as latin-1
    headers = [(b"content-type", content_type.encode("latin-1"))]
    request = Request({"type": "http", "headers": headers}, replayed(body))
    try:
        async with request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=len(body)) as form:
            fields = [(name, await _text(value)) for name, value in form.multi_items()]
    except MultiPartException as error:
        raise ValueError(error.message) from error
    _check_complete(body, content_type)
    return _from_fields(fields)


def _check_complete(body: bytes, content_type: str) -> None:
    """Refuse a form that was cut off, which the parser would read without its last part."""
    if f"\r\n--{_parameter(content_type, 'boundary', '')}--".encode() not in b"\r\n" + body:
        msg = "a form must end with its boundary and `--`: it was cut off"
        raise ValueError(msg)


async def _text(value: str | UploadFile) -> str:
    return value if isinstance(value, str) else (await value.read()).decode()


def _from_fields(fields: list[tuple[str, str]]) -> Content:
    if len(fields) > MAX_FIELDS:
        msg = f"a form must have at most {MAX_FIELDS} fields (got {len(fields)})"
        raise ValueError(msg)
    values: dict[str, list[str]] = {name: [] for name in FIELDS}
    for name, value in fields:
        if name in values:
            values[name].append(value)
    if len(values["data"]) != 1 or len(values["event"]) > 1:
        msg = "a form must have one field `data`, at most one `event`, and any number of `channel`"
        raise ValueError(msg)
    return Content(values["data"][0], next(iter(values["event"]), None), tuple(values["channel"]))


READERS: dict[str, Callable[[bytes, str], Awaitable[Content]]] = {
    "application/json": _from_json,
    "text/plain": _from_text,
    "application/x-www-form-urlencoded": _from_query,
    MULTIPART: _from_multipart,
}
