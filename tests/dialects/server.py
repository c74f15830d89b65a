"""The application that the clients of each protocol talk to: `uvicorn dialects.server:app`.

A path is `/{protocol}/{scenario}/`, followed by whatever the client adds to its base URL.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from ag_ui.core import (
    RunFinishedEvent,
    RunStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
)
from ag_ui.encoder import EventEncoder
from pydantic_ai.ui.vercel_ai import VercelAIEventStream
from pydantic_ai.ui.vercel_ai.request_types import SubmitMessage
from pydantic_ai.ui.vercel_ai.response_types import (
    BaseChunk,
    DoneChunk,
    FinishChunk,
    StartChunk,
    TextDeltaChunk,
    TextEndChunk,
    TextStartChunk,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi.decoder import EventDecoder
from sse_asgi.dialects import AG_UI, AI_SDK, ANTHROPIC, OPENAI, Dialect

# What a model says: letters of more than one byte, and text that must not become a frame or an end.
WORDS = ("Grüße, ", "世界 😀", "\n\ndata: [DONE]\n\n", "[DONE]", "\r\nevent: error\r\n", "\u2028.")
hub = Hub()


def openai() -> Iterable[Any]:
    for word in WORDS:
        yield openai_chunk({"content": word}, None)
    yield openai_chunk({}, "stop")


def openai_chunk(delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def anthropic() -> Iterable[Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    yield {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in WORDS:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


def ai_sdk() -> Iterable[Any]:
    """As JSON text, of several lines."""
    yield from (json.dumps(part, indent=1) for part in ai_sdk_parts())


def ai_sdk_parts() -> Iterable[dict[str, str]]:
    yield {"type": "start"}
    yield {"type": "text-start", "id": "1"}
    yield from ({"type": "text-delta", "id": "1", "delta": word} for word in WORDS)
    yield {"type": "text-end", "id": "1"}
    yield {"type": "finish"}


def ag_ui() -> Iterable[Any]:
    """As models of ag-ui-protocol, whose fields that are None its client refuses."""
    yield RunStartedEvent(thread_id="1", run_id="1")
    yield TextMessageStartEvent(message_id="1", role="assistant")
    yield from (TextMessageContentEvent(message_id="1", delta=word) for word in WORDS)
    yield TextMessageEndEvent(message_id="1")
    yield RunFinishedEvent(thread_id="1", run_id="1")


PROTOCOLS: dict[str, tuple[Dialect, Callable[[], Iterable[Any]]]] = {
    "openai": (OPENAI, openai),
    "anthropic": (ANTHROPIC, anthropic),
    "ai_sdk": (AI_SDK, ai_sdk),
    "ag_ui": (AG_UI, ag_ui),
}
SECRET = "a secret"  # of an exception
MIDDLE = 4  # items, of which the last ones are text


def text(name: str) -> Response:
    """All items, and the end; the first pings come in between."""
    dialect, items = PROTOCOLS[name]

    async def slowly() -> AsyncIterator[Any]:
        for number, item in enumerate(items()):
            yield item
            await asyncio.sleep(0.12 if number == MIDDLE else 0)

    return EventSourceResponse(slowly(), dialect=dialect, ping_interval=0.05, retry=5)


def error(name: str) -> Response:
    """The content raises in the middle."""
    dialect, items = PROTOCOLS[name]

    async def failing() -> AsyncIterator[Any]:
        for number, item in enumerate(items()):
            if number == MIDDLE:
                await asyncio.sleep(0.02)  # so that the head is sent
                raise ZeroDivisionError(SECRET)
            yield item

    return EventSourceResponse(failing(), dialect=dialect)


def interruption(name: str) -> Response:
    """The stream is cut off in the middle."""
    dialect, items = PROTOCOLS[name]

    async def endless() -> AsyncIterator[Any]:
        for item in list(items())[:MIDDLE]:
            yield item
        await asyncio.Event().wait()

    return EventSourceResponse(endless(), dialect=dialect, max_lifetime=0.3)


def empty(name: str) -> Response:
    return EventSourceResponse([], dialect=PROTOCOLS[name][0])


async def published(name: str) -> Response:
    """A subscription, which resumes after what was published before, and is finished at last."""
    dialect, items = PROTOCOLS[name]
    start = await hub.publish(name, "before")
    for item in items():
        await hub.publish(name, EventDecoder().feed(dialect.item(item))[0].data)
    subscription = hub.subscribe(name, last_event_id=start)
    asyncio.get_running_loop().call_later(0.3, subscription.end, "finished")
    return EventSourceResponse(subscription, dialect=dialect)


def passed_on(name: str) -> Response:
    """A stream as another library writes it, one byte after the other."""
    dialect, items = PROTOCOLS[name]

    async def written() -> AsyncIterator[str | bytes]:
        if name == "ag_ui":
            for event in items():
                yield EventEncoder().encode(event)
        elif name == "ai_sdk":
            adapter = VercelAIEventStream(SubmitMessage(id="1", messages=[]))
            async for frame in adapter.encode_stream(vercel_chunks()):
                yield frame
        else:
            yield b"".join(map(dialect.item, items())) + dialect.end()

    async def cut() -> AsyncIterator[bytes]:
        async for frame in written():
            data = frame.encode() if isinstance(frame, str) else frame
            for start in range(len(data)):
                yield data[start : start + 1]

    return EventSourceResponse(cut(), dialect=dialect, encoded=True)


async def vercel_chunks() -> AsyncIterator[BaseChunk]:
    yield StartChunk()
    yield TextStartChunk(id="1")
    for word in WORDS:
        yield TextDeltaChunk(id="1", delta=word)
    yield TextEndChunk(id="1")
    yield FinishChunk()
    yield DoneChunk()


def unfinished(name: str) -> Response:
    """A stream that is passed on, and breaks off inside a frame."""
    dialect, items = PROTOCOLS[name]

    async def chunks() -> AsyncIterator[bytes]:
        yield b"".join(map(dialect.item, list(items())[:MIDDLE]))
        await asyncio.sleep(0.02)
        yield b'data: {"half'

    return EventSourceResponse(chunks(), dialect=dialect, encoded=True)


SCENARIOS: dict[str, Callable[[str], Any]] = {
    one.__name__: one for one in (text, error, interruption, empty, published, passed_on, unfinished)
}


async def answer(request: Request) -> Response:
    made = SCENARIOS[request.path_params["scenario"]](request.path_params["protocol"])
    response: Response = await made if asyncio.iscoroutine(made) else made
    return response


routes = [Route("/{protocol}/{scenario}/{rest:path}", answer, methods=["POST"])]
app = EventSourceMiddleware(Starlette(routes=routes), hub=hub)
