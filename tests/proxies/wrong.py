"""A proxy that is wrong on purpose: it passes one connection on, with one fault."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from cli.scripted import Answer, Asked, Script


@dataclass(frozen=True)
class Fault:
    """What the proxy does wrong.

    Attributes:
        head: Changes the head of each answer.
        forgets: A header of requests that it does not pass on.
        lumps: It passes bytes on in such intervals only, in seconds.
        limit: It cuts each answer off after this time, in seconds.
        hangs: A method that it never answers.
    """

    head: Callable[[bytes], bytes] = bytes
    forgets: str = ""
    lumps: float = 0.0
    limit: float | None = None
    hangs: str = ""


def without(name: str, instead: str = "") -> Callable[[bytes], bytes]:
    """Return a change of the head that replaces a header by other lines."""
    return lambda head: re.sub(rb"(?i)\r\n%b: [^\r]*" % name.encode(), instead.encode(), head)


def proxy(upstream: int, fault: Fault) -> Script:
    """Return the script of a proxy in front of a port."""

    async def script(asked: Asked, answer: Answer) -> None:
        if asked.method == fault.hangs:
            await asyncio.sleep(60)
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream)
        try:
            headers = {**asked.headers, "connection": "close"}
            headers.pop(fault.forgets, None)
            lines = [f"{asked.method} {asked.target} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + asked.body)
            async with asyncio.timeout(fault.limit):
                await answer.raw(fault.head(await reader.readuntil(b"\r\n\r\n")))
                while piece := await reader.read(65536):
                    await answer.raw(piece)
                    await asyncio.sleep(fault.lumps)
        except TimeoutError:
            pass
        finally:
            writer.close()

    return script
