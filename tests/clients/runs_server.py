"""The recipes for runs of docs/llm.md, on a network that breaks: `uvicorn clients.runs_server:app`.

Each recipe is served as it stands there, below a prefix of each of its clients. Only its model is replaced, by one that
is slow enough to be interrupted. The first stream of each prefix and method is broken off in the middle.
"""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOCUMENT = (Path(__file__).parents[2] / "docs" / "llm.md").read_text()
SECTIONS = {
    "eventsource": "Answers that outlive their request",
    "fetch": "Answers that outlive their request",
    "curl": "Answers that outlive their request",
    "ai_sdk": "AI SDK: `useChat({resume: true})`",
    "tanstack": "TanStack AI",
    "langgraph": "LangGraph's SDK",
}
WORDS = tuple(f"{number}: Grüße, 世界,\n\ndata: x\n" for number in range(12))
WORD_SECONDS = 0.04
MIDDLE = 4  # events
starts: Counter[str] = Counter()
requests: dict[str, list[list[Any]]] = defaultdict(list)


def recipe(client: str) -> ASGIApp:
    """Run the first block of Python of a section, and return its application."""
    section = re.split(rf"^##+ {re.escape(SECTIONS[client])}$", DOCUMENT, flags=re.MULTILINE)[1]
    names: dict[str, Any] = {"__name__": client}
    exec(section.partition("```python\n")[2].partition("```")[0], names)

    async def words(question: str) -> AsyncIterator[str]:
        starts[client] += 1
        for word in (*WORDS, question):
            await asyncio.sleep(WORD_SECONDS)
            yield word

    names["words"] = words
    app: ASGIApp = names["app"]
    return app


class BrokenNetwork:
    """Breaks the first stream of each prefix and method off, and notes all requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._broken: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cycle: Any = send
        transport, events = cycle.__self__.transport, 0
        request = Request(scope)
        client = request.url.path.split("/")[1]
        note = [request.method, request.url.path, request.headers.get("last-event-id"), None]
        requests[client].append(note)

        async def unreliable(message: Message) -> None:
            nonlocal events
            note[3] = message.get("status", note[3])
            await send(message)
            events += message.get("body", b"").count(b"data:")
            if events >= MIDDLE and (client, request.method) not in self._broken:
                self._broken.add((client, request.method))
                transport.abort()

        await self._app(scope, receive, unreliable)


async def facts(_: Request) -> Response:
    return JSONResponse({"starts": starts, "requests": requests})


routes = [Route("/facts", facts), *(Mount(f"/{client}", recipe(client)) for client in SECTIONS)]
app = BrokenNetwork(Starlette(routes=routes))
