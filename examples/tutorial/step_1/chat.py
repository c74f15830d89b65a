"""A stream that greets, and ends."""

import asyncio
from collections.abc import AsyncIterable

from fastapi import FastAPI
from pydantic import BaseModel

from sse_asgi import EventSourceResponse

app = FastAPI()


class Message(BaseModel):
    """One line of the chat."""

    name: str
    text: str


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterable[Message]:
    """Stream two messages, a second apart."""
    for text in ("Welcome!", "Soon there will be others."):
        yield Message(name="chat", text=text)
        await asyncio.sleep(1)
