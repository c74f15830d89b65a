"""Generators of TypeScript read the documents of streams, and what they make has the types of the events."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterable
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from sse_asgi import EventSourceApp, EventSourceResponse, Hub
from sse_asgi.fastapi import event_schema, prepare

pytest.importorskip("fastapi.sse")  # an older FastAPI has no endpoints that yield
HERE = Path(__file__).parent
PROGRAMS = HERE / "node_modules" / ".bin"


class Token(BaseModel):
    text: str


class Done(BaseModel):
    tokens: int


async def answer(question: str) -> AsyncIterable[Token | Done]:
    yield Token(text=question)


def run(folder: Path, program: str, *arguments: str) -> None:
    """Run a program of npm; if it fails, show what it says."""
    result = subprocess.run([PROGRAMS / program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_generated_types_compile_and_know_the_events(tmp_path: Path) -> None:
    """openapi-typescript and @hey-api/openapi-ts: an endpoint that yields, and an EventSourceApp that is mounted."""
    app = FastAPI()
    events = event_schema(token=Token, done=Done)
    app.post("/answer", operation_id="answer", response_class=EventSourceResponse, responses=events)(answer)
    app.mount("/events", EventSourceApp(Hub(events={"said": Token})))
    prepare(app)
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    run(tmp_path, "openapi-typescript", "openapi.json", "--output", "api.d.ts")
    run(tmp_path, "openapi-ts", "--input", "openapi.json", "--output", "client")
    shutil.copy(HERE / "usage.ts", tmp_path)
    strict = ("--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "preserve")
    run(tmp_path, "tsc", *strict, "--lib", "es2022,dom,dom.iterable", "usage.ts")
