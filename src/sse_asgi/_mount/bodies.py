"""What a body that is published says, by its media type; no header costs more than its length to read."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException

MAX_TYPE = 256
MAX_PART_HEAD = 1024
MAX_FIELDS = 100
FIELDS = ("data", "event", "channel")
CHARSETS = ("utf-8", "utf8", "us-ascii")

# https://www.rfc-editor.org/rfc/rfc9110#name-parameters
PARAMETER = re.compile(r""";\s*([\w!#$%&'*+.^`|~-]+)=(?:"([^"]*)"|([^;\s]*))""")


class Content(NamedTuple):
    """What a body says; an event type and channels only where it is a form."""

    data: Any
    event: str | None = None
    channels: tuple[str, ...] = ()


Parameters = Mapping[str, str]
Reader = Callable[[bytes], Content]


def reader(content_type: str) -> Reader:
    """Return what reads bodies of this type, and raises ValueError for what is none.

    Raises:
        HTTPException: 415, there is nothing that does.
    """
    name = content_type.partition(";")[0].strip().lower()
    if name not in READERS or len(content_type) > MAX_TYPE:
        raise HTTPException(415, f"send one of {', '.join(READERS)} as the Content-Type")
    parameters = _parameters(content_type)
    if parameters.get("charset", "utf-8").lower() not in CHARSETS:
        raise HTTPException(415, "send the body as UTF-8")
    return lambda body: READERS[name](body, parameters)


def _parameters(header: str) -> Parameters:
    """Read `; name=value`; of two with one name the first counts."""
    return {name.lower(): quoted or plain for name, quoted, plain in reversed(PARAMETER.findall(header))}


def _from_text(body: bytes, _: Parameters) -> Content:
    return Content(body.decode())


def _from_json(body: bytes, _: Parameters) -> Content:
    return Content(json.loads(body.decode()))


def _from_query(body: bytes, _: Parameters) -> Content:
    return _from_fields(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS))


def _from_multipart(body: bytes, parameters: Parameters) -> Content:
    """Split a form into its parts: https://www.rfc-editor.org/rfc/rfc7578."""
    boundary = parameters.get("boundary")
    if not boundary:
        msg = "the Content-Type names no boundary"
        raise ValueError(msg)
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"), MAX_FIELDS + 2)
    if len(parts) > MAX_FIELDS + 2:
        msg = f"a form may have {MAX_FIELDS} fields"
        raise ValueError(msg)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):  # noqa: PLR2004 - before, between and after the boundaries
        msg = "the form is not complete"
        raise ValueError(msg)
    return _from_fields([_field(part) for part in parts[1:-1]])


def _field(part: bytes) -> tuple[str | None, str]:
    head, _, value = part.partition(b"\r\n\r\n")
    if len(head) > MAX_PART_HEAD:
        msg = f"the head of a field may have {MAX_PART_HEAD} bytes"
        raise ValueError(msg)
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n"))
    headers = {name.strip().lower(): text for name, _, text in lines}
    return _parameters(headers.get("content-disposition", "")).get("name"), value.decode()


def _from_fields(fields: list[tuple[Any, str]]) -> Content:
    values: dict[str, list[str]] = {name: [] for name in FIELDS}
    for name, value in fields:
        if name in values:
            values[name].append(value)
    if len(values["data"]) != 1 or len(values["event"]) > 1:
        msg = "a form has one field `data`, at most one `event`, and any number of `channel`"
        raise ValueError(msg)
    return Content(values["data"][0], next(iter(values["event"]), None), tuple(values["channel"]))


READERS: dict[str, Callable[[bytes, Parameters], Content]] = {
    "application/json": _from_json,
    "text/plain": _from_text,
    "application/x-www-form-urlencoded": _from_query,
    "multipart/form-data": _from_multipart,
}
