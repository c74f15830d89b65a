"""A chat with a language model. Its answers outlive requests, tabs and processes.

    python examples/llm_chat/app.py    # or in examples/llm_chat/: uvicorn app:app

Each answer is a run: the hub produces it once, keeps its words, and streams them to every page that asks. So a page
that is reloaded, or opened on a phone, shows the same text. README.md says what to try, and how to ask a real model.
"""

import json
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import anyio
import httpx
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi import Path as Part
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, ServerSentEvent, SSEError, create_hub, get_hub
from sse_asgi.decoder import EventDecoder

LLM_URL, LLM_MODEL = os.environ.get("LLM_URL", ""), os.environ.get("LLM_MODEL", "")
LLM_KEY = os.environ.get("LLM_KEY", "")  # for services that want one
WORD_SECONDS = float(os.environ.get("WORD_SECONDS", "0.08"))
ORPHAN_SECONDS = 300.0  # an answer that no page follows for so long is cancelled, so that it costs nothing more
THINKING_SECONDS = 300.0  # that a model may take before its next word
GO_ON = "Your answer was interrupted. Go on exactly behind its last character, and repeat nothing."
HERE = Path(__file__).parent


class Message(BaseModel):
    """A part of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(max_length=100_000)]


class Question(BaseModel):
    """A question as a page asks it; it asks again with another `part` to go on with an interrupted answer.

    The page makes the id, so a request that is sent twice starts one answer. The last message is the question, or the
    text so far of the answer to go on with.
    """

    id: UUID
    part: Annotated[int, Field(ge=0, lt=100)] = 0
    messages: Annotated[list[Message], Field(min_length=1, max_length=200)]

    @property
    def text(self) -> str:
        """What is asked."""
        return next((one.content for one in reversed(self.messages) if one.role == "user"), "")

    @property
    def so_far(self) -> str:
        """What was answered before the interruption."""
        return self.messages[-1].content if self.messages[-1].role == "assistant" else ""


def allowed(chat: Annotated[str, Part(pattern=r"^[\w-]{8,64}$")]) -> str:
    """Return the chat of a request that may read it and write to it. Every endpoint below depends on this.

    Here, everyone who knows the address may. An application checks the user of each request.
    """
    return chat


Chat = Annotated[str, Depends(allowed)]
TheHub = Annotated[Hub, Depends(get_hub)]

app = FastAPI(title="LLM chat")
app.add_middleware(EventSourceMiddleware, hub=create_hub())
app.mount("/client", StaticFiles(packages=[("sse_asgi", "client")]))  # sse-asgi.js, with which the page reads


async def answer(question: Question) -> AsyncIterator[ServerSentEvent]:
    """Produce an answer: its writer, the text so far if it goes on, then each word. The end is the library's."""
    yield ServerSentEvent({"model": LLM_MODEL, "process": os.getpid()}, event="writer")
    if question.so_far:
        yield ServerSentEvent(question.so_far)
    async with aclosing(ask_model(question) if LLM_URL else say_words(question)) as words:
        async for word in words:
            yield ServerSentEvent(word)


async def say_words(question: Question) -> AsyncGenerator[str]:
    """Say a text that was written before, for lack of a model."""
    text = (HERE / "words.txt").read_text().format(question=question.text)
    for word in re.findall(r"\S+\s*", text[len(question.so_far) :]):
        await anyio.sleep(WORD_SECONDS)
        yield word


async def ask_model(question: Question) -> AsyncGenerator[str]:
    """Ask a server that speaks OpenAI's protocol. To stop the run closes the request."""
    messages = [one.model_dump() for one in question.messages]
    if question.so_far:
        messages.append({"role": "user", "content": GO_ON})
    body = {"model": LLM_MODEL, "messages": messages, "stream": True}
    headers = {"authorization": f"Bearer {LLM_KEY}"} if LLM_KEY else {}
    async with (
        httpx.AsyncClient(timeout=THINKING_SECONDS) as client,
        client.stream("POST", f"{LLM_URL}/chat/completions", json=body, headers=headers) as upstream,
    ):
        upstream.raise_for_status()
        decoder = EventDecoder()
        async for chunk in upstream.aiter_bytes():
            for event in decoder.feed(chunk):
                if event.data != "[DONE]":
                    for choice in json.loads(event.data)["choices"]:
                        yield choice["delta"].get("content") or ""


@app.get("/chats/{chat}/questions")
async def questions(chat: Chat, hub: TheHub) -> EventSourceResponse:
    """Stream the questions of a chat, first those that were asked before."""
    about = ServerSentEvent({"model": LLM_MODEL}, event="about")
    return EventSourceResponse(hub.subscribe(f"chat:{chat}", initial=[about], rewind=math.inf))


@app.post("/chats/{chat}/questions", status_code=202)
async def ask(chat: Chat, hub: TheHub, question: Question) -> dict[str, bool]:
    """Start the answer, unless it has started, then tell all pages of the question."""
    key = f"{chat}/{question.id}/{question.part}"
    run = await hub.start_run(key, partial(answer, question), orphan_timeout=ORPHAN_SECONDS)
    asked = {"id": str(question.id), "part": question.part, "text": question.text}
    await hub.publish(f"chat:{chat}", asked, event="question", idempotency_key=key)
    return {"started": run.started}


@app.get("/chats/{chat}/answers/{question}/{part}")
async def follow(chat: Chat, question: UUID, part: int, hub: TheHub) -> EventSourceResponse:
    """Stream an answer from its first word, or behind the page's Last-Event-ID."""
    run = await hub.get_run(f"{chat}/{question}/{part}")
    if run is None:
        raise HTTPException(404, "this answer was never begun, or is not kept any more")
    return EventSourceResponse(run)


@app.post("/chats/{chat}/answers/{question}/{part}/cancel")
async def cancel(chat: Chat, question: UUID, part: int, hub: TheHub) -> dict[str, bool]:
    """Stop an answer, in whatever process it is written."""
    return {"cancelled": await hub.cancel_run(f"{chat}/{question}/{part}")}


@app.exception_handler(SSEError)
async def unavailable(_: Request, error: Any) -> JSONResponse:
    """Answer while Redis is away, or when this process has too many runs; the page may try again."""
    return JSONResponse({"detail": str(error)}, 503)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(HERE / "index.html")


if __name__ == "__main__":
    uvicorn.run(app)
