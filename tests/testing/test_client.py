"""EventStreamClient: requests, cookies and the lifespan."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sse_asgi import EventSourceResponse, Hub
from sse_asgi.testing import EventStreamClient
from streaming_apps import streaming

pytestmark = pytest.mark.anyio


async def test_an_application_must_be_callable() -> None:
    """A hub instead of an application is a TypeError that says what to give."""
    with pytest.raises(TypeError, match=r"^app must be an ASGI application \(got Hub\): give EventSourceApp\(hub\)"):
        EventStreamClient(Hub())  # type: ignore[arg-type]


# Requests


async def echo(request: Request) -> Response:
    """Answer with the request, and set the cookies that its query has."""
    answer = JSONResponse({"method": request.method, "form": dict(await request.form()), "cookies": request.cookies})
    for name, value in request.query_params.items():
        answer.set_cookie(name, value)
    return answer


async def endless(request: Request) -> EventSourceResponse:
    """Stream one event, and then nothing."""

    async def events() -> Any:
        yield request.cookies.get("name", "nobody")
        await anyio.sleep_forever()

    response = EventSourceResponse(events())
    response.set_cookie("seen", "yes")
    return response


APP = Starlette(routes=[Route("/", echo, methods=["GET", "POST", "DELETE"]), Route("/endless", endless)])


async def test_a_request_gives_a_whole_answer() -> None:
    """request() returns the answer when it has ended, beside a stream that goes on."""
    async with EventStreamClient(APP) as client, client.stream("/endless"):
        answer = await client.request("POST", "/", data={"text": "hello"})
        assert (answer.status_code, answer.complete) == (200, True)
        assert answer.json() == {"method": "POST", "form": {"text": "hello"}, "cookies": {"seen": "yes"}}


async def test_a_request_that_does_not_end_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """request() of an endless stream raises a TimeoutError, and disconnects."""
    monkeypatch.setattr("sse_asgi.testing._client.REQUEST_SECONDS", 0.05)
    async with EventStreamClient(APP) as client:
        with pytest.raises(TimeoutError, match=r"^GET /endless has not ended in 0\.05 s: read .* client\.stream"):
            await client.request("GET", "/endless")


async def test_an_unknown_option_is_refused_by_the_name_of_the_method() -> None:
    """Each method names itself in its TypeError."""
    client = EventStreamClient(APP)
    options: Any = {"jso": {}}
    with pytest.raises(TypeError, match=r"^EventStreamClient.request has no option jso=: did you mean json=\?"):
        await client.request("POST", "/", **options)


async def test_an_endless_stream_takes_no_time() -> None:
    """One event of a stream that never ends is read, and the stream is left, ten times in less than a second."""
    with anyio.fail_after(1):
        async with EventStreamClient(APP) as client:
            for _ in range(10):
                async with client.stream("/endless") as stream:
                    assert (await stream.next_event()).data == "nobody"


# Cookies


async def test_cookies_are_kept_between_requests() -> None:
    """What one answer sets is sent by the next request, a stream included; what a stream sets is kept too."""
    async with EventStreamClient(APP, cookies={"first": "1"}) as client:
        await client.request("GET", "/?name=Ada")
        async with client.stream("/endless") as stream:
            assert (await stream.next_event()).data == "Ada"
        answer = await client.request("GET", "/")
        assert answer.json()["cookies"] == {"first": "1", "name": "Ada", "seen": "yes"} == dict(client.cookies)


async def test_cookies_of_one_request_are_not_kept() -> None:
    """They replace kept ones of the same name, once. A Cookie header replaces all."""
    async with EventStreamClient(APP, cookies={"name": "Ada", "room": "1"}) as client:
        answer = await client.request("GET", "/", cookies={"name": "Bob"})
        assert answer.json()["cookies"] == {"room": "1", "name": "Bob"}
        answer = await client.request("GET", "/", headers={"Cookie": "a=b"})
        assert answer.json()["cookies"] == {"a": "b"}
        assert (await client.request("GET", "/")).json()["cookies"] == {"name": "Ada", "room": "1"}


# The lifespan


class Living:
    """An application that records its startup, requests and shutdown, and may fail in any of them."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.notes: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan or one request."""
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await self._phase(what, scope, receive, send)
        else:
            self.notes.append(f"request with {scope['state']}")
            scope["state"]["of the request"] = True
            await streaming(b"data: a\n\n")(scope, receive, send)

    async def _phase(self, what: str, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert message["type"] == f"lifespan.{what}"
        self.notes.append(what)
        if self.fail == f"raise in {what}":
            raise ValueError(self.fail)
        if self.fail == f"refuse {what}":
            await send({"type": f"lifespan.{what}.failed", "message": f"no {what} today"})
            return
        if self.fail == f"refuse {what} silently":
            await send({"type": f"lifespan.{what}.failed"})
            return
        scope["state"]["lived"] = True
        await send({"type": f"lifespan.{what}.complete"})
        if self.fail == f"raise after {what}":
            raise ValueError(self.fail)


async def test_a_client_as_a_context_runs_the_lifespan() -> None:
    """Startup ends before the first request; shutdown runs at the end of the block."""
    app = Living()
    async with EventStreamClient(app) as client:
        assert app.notes == ["startup"]
        async with client.stream("/") as stream:
            await stream.read()
    assert app.notes == ["startup", "request with {'lived': True}", "shutdown"]


async def test_each_request_has_a_copy_of_the_state() -> None:
    """Every request has the state of the lifespan, without changes by other requests."""
    app = Living()
    async with EventStreamClient(app) as client:
        for _ in range(2):
            async with client.stream("/") as stream:
                await stream.read()
    assert app.notes[1] == app.notes[2] == "request with {'lived': True}"


async def test_without_a_context_there_is_no_lifespan() -> None:
    """Without `async with`, a request does not run the lifespan, and its state is empty."""
    app = Living()
    async with EventStreamClient(app).stream("/") as stream:
        await stream.read()
    assert app.notes == ["request with {}"]


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_is_raised_with_its_message(what: str) -> None:
    """The failure message of the application is the text of a RuntimeError."""
    with pytest.raises(RuntimeError, match=f"no {what} today"):
        async with EventStreamClient(Living(f"refuse {what}")):
            pass


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_without_a_message_is_raised_too(what: str) -> None:
    """Without a text, the RuntimeError has the type of the ASGI message."""
    with pytest.raises(RuntimeError, match=rf"^lifespan\.{what}\.failed$"):
        async with EventStreamClient(Living(f"refuse {what} silently")):
            pass


@pytest.mark.parametrize(
    ("fail", "before"),
    [("raise in startup", "startup"), ("raise after startup", "shutdown"), ("raise in shutdown", "shutdown")],
)
async def test_an_exception_in_the_lifespan_is_the_cause(fail: str, before: str) -> None:
    """A lifespan that raises is a RuntimeError that says when, and whose cause is the application's exception."""
    with pytest.raises(RuntimeError, match=f"ended its lifespan before its {before}") as caught:
        async with EventStreamClient(Living(fail)):
            await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_application_without_a_lifespan_says_so() -> None:
    """An application that returns from the lifespan at once is a RuntimeError too."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="ended its lifespan before its startup"):
        async with EventStreamClient(app):
            pytest.fail("there was no startup")


async def test_the_application_is_stopped_when_the_test_fails() -> None:
    """An exception of the block is raised after the shutdown."""
    app = Living()
    with pytest.raises(KeyError):
        async with EventStreamClient(app):
            raise KeyError
    assert app.notes == ["startup", "shutdown"]


async def test_a_client_can_be_a_context_again() -> None:
    """Each `async with` block runs the lifespan once."""
    app = Living()
    client = EventStreamClient(app)
    for _ in range(2):
        async with client:
            pass
    assert app.notes == ["startup", "shutdown"] * 2
