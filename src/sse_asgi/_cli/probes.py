"""The doctor's own requests beside the streams that it watches: HEAD, another origin, a resume, a restart."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from itertools import pairwise
from typing import NamedTuple

import anyio
import httpx

from .._log.names import RESERVED
from ..decoder import DecodedEvent
from .findings import DOCS, Finding
from .following import StreamError
from .request import FAILURES, StreamRequest, explain
from .tail import GAP
from .watch import COMPLETE, Watch

PATIENCE = 5.0
ORIGIN_SECONDS = 1.0
RESTART_SECONDS = 30.0
OPEN_SECONDS = 0.5
NOT_SUPPORTED = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
SIMPLE_HEADERS = {"accept", "accept-language", "content-language", "cookie"}


class Outcome(NamedTuple):
    """Findings, and notes about what could not be judged."""

    findings: list[Finding]
    notes: list[str]


async def head(request: StreamRequest) -> Outcome:
    """Ask by HEAD, which must be answered without starting a stream."""
    url, fix = request.url, "Answer HEAD with the head of the stream, without starting its source"
    try:
        async with request.client() as client:
            response = await client.head(url, headers=request.headers, timeout=PATIENCE)
    except httpx.TimeoutException:
        problem = f"HEAD is not answered within {PATIENCE:g} s, so checks of uptime and caches hang"
        return Outcome([Finding("head", url, problem, fix)], [])
    except FAILURES as error:
        return Outcome([Finding("head", url, f"HEAD fails: {explain(error)}", fix)], [])
    if response.status_code in NOT_SUPPORTED:
        return Outcome([], [f"HEAD is answered {response.status_code}, which some uptime checks take for a fault"])
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome([Finding("head", url, f"HEAD is answered {response.status_code}", fix)], [])
    return Outcome([], [])


async def cors(request: StreamRequest, origin: str | None) -> Outcome:
    """Ask as a page of another origin does, and by a preflight if there are headers that need one."""
    if origin is None:
        return Outcome([], ["CORS was not tried: give --origin https://your.page if pages of other origins read it"])
    watch = Watch(_with(request, Origin=origin))
    await watch.run(ORIGIN_SECONDS)
    problem = (
        "" if watch.response is None else _cors_problem(watch.response, origin, credentials=_has_credentials(request))
    )
    if watch.response is None:
        problem = f"a request with this origin is not answered: {watch.end or 'its head does not arrive'}"
    names = sorted({name.lower() for name in request.headers} - SIMPLE_HEADERS)
    if not problem and names:
        problem = await _preflight_problem(request, origin, names)
    fix = f"Allow {origin}, for example EventSourceApp(cors_origins=[{origin!r}], cors_headers=[...])"
    return Outcome([Finding("cors", request.url, f"For a page of {origin}, {problem}", fix)] if problem else [], [])


def _with(request: StreamRequest, **headers: str) -> StreamRequest:
    given = {**request.headers, **headers}
    return StreamRequest(request.url, request.method, given, request.body, request.insecure)


def _has_credentials(request: StreamRequest) -> bool:
    return "cookie" in map(str.lower, request.headers)


def _cors_problem(response: httpx.Response, origin: str, *, credentials: bool) -> str:
    allowed = response.headers.get("Access-Control-Allow-Origin")
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        return f"the answer is {response.status_code}"
    if allowed is None:
        return "Access-Control-Allow-Origin is missing, so the browser gives up at once"
    if allowed != origin and (allowed != "*" or credentials):
        return f"Access-Control-Allow-Origin is {allowed}, so the browser gives up at once"
    if credentials and response.headers.get("Access-Control-Allow-Credentials") != "true":
        return "Access-Control-Allow-Credentials: true is missing, which a request with cookies needs"
    return ""


async def _preflight_problem(request: StreamRequest, origin: str, names: Sequence[str]) -> str:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": request.method,
        "Access-Control-Request-Headers": ", ".join(names),
    }
    try:
        async with request.client() as client:
            response = await client.options(request.url, headers=headers, timeout=PATIENCE)
    except FAILURES as error:
        return f"the preflight fails: {explain(error)}"
    if not response.is_success:
        return f"the preflight is answered {response.status_code}"
    allowed = {name.strip().lower() for name in response.headers.get("Access-Control-Allow-Headers", "").split(",")}
    missing = [name for name in names if name not in allowed and "*" not in allowed]
    return f"the preflight does not allow the headers {', '.join(missing)}" if missing else ""


# Resuming


async def resume(url: Watch, direct: Watch | None) -> Outcome:
    """Come back after the first event with an id, as a browser does, and expect the second one."""
    if url.request.method != "GET":
        return Outcome([], ["resuming was not tried, because the request is not a GET"])
    events = [event for event, _ in url.events]
    if any(map(_is_real, events)) and not any(event.id for event in events):
        return Outcome([], ["the events have no ids, so what is sent while a client is away is lost for it"])
    ids = _neighbours(events)
    if ids is None:
        return Outcome([], ["resuming was not tried, because fewer than two events with ids arrived: give --publish"])
    problem = await _resume_problem(url.request, *ids)
    if not problem:
        return Outcome([], [])
    where, fix = url.request.url, "Send what follows the event that Last-Event-ID names, from a history"
    if direct is not None and not await _resume_problem(direct.request, *ids):
        where = f"between {direct.request.url} and {url.request.url}"
        fix = "Let the proxy pass the request's header Last-Event-ID on, and do not cache the answers"
    return Outcome([Finding("resume", where, problem, fix)], [])


def _is_real(event: DecodedEvent) -> bool:
    """Return True for events of the application; a gap stands for some."""
    return event.event == GAP or not event.event.startswith(RESERVED)


def _neighbours(events: Sequence[DecodedEvent]) -> tuple[str, str] | None:
    """Return an id, and that of the event of the application which came next, or None."""
    for before, after in pairwise(event for event in events if event.id):
        if _is_real(after) and before.id != after.id:
            return before.id, after.id
    return None


async def _resume_problem(request: StreamRequest, before: str, after: str) -> str:
    watch = Watch(request, last_event_id=before)
    with anyio.move_on_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run, PATIENCE)
            await watch.until(lambda: watch.end or _first_real(watch))
            tasks.cancel_scope.cancel()
    return _judge_resumed(_first_real(watch), before, after)


def _first_real(watch: Watch) -> DecodedEvent | None:
    return next((event for event, _ in watch.events if event.id and _is_real(event)), None)


def _judge_resumed(event: DecodedEvent | None, before: str, after: str) -> str:
    asked = f"After Last-Event-ID: {before},"
    if event is None:
        return f"{asked} the event {after} does not come again, so a client that was away misses it"
    if event.event == GAP or event.id == after:
        return ""
    if event.id == before:
        return f"{asked} this event comes again: the header is ignored, and a client gets events twice"
    return f"{asked} the next event is {event.id} instead of {after}, so the header is ignored or events are lost"


# Restarting


async def restart(request: StreamRequest, command: str | None) -> Outcome:
    """Restart the application by a command, and watch how its streams end, and how clients come back.

    Raises:
        StreamError: The command failed.
    """
    if command is None:
        return Outcome([], ["a restart was not tried: give --restart with the command that restarts the application"])
    watch, done, failures = Watch(request), anyio.Event(), []

    async def run() -> None:
        failures.append(await shell(command, "--restart"))
        done.set()
        watch.notify()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run, RESTART_SECONDS + PATIENCE)
        with anyio.move_on_after(PATIENCE):
            await watch.until(lambda: watch.arrivals or watch.end)
        tasks.start_soon(run)
        statuses, back = await _come_back(request, watch, done)
        tasks.cancel_scope.cancel()
    if failure := "".join(failures):
        raise StreamError(failure)
    notes = [] if watch.retry else ["the stream sends no `retry:`, so after a restart all clients come back at once"]
    return Outcome(_judge_restart(watch, statuses, back=back), notes)


def _judge_restart(watch: Watch, statuses: Collection[int], *, back: bool) -> list[Finding]:
    url, findings = watch.request.url, []
    if not watch.end:
        fix = "End streams when the server is told to stop, as EventSourceMiddleware does, or limit the server's grace"
        findings.append(Finding("restart-open", url, "The stream stayed open through the restart", fix))
    elif watch.end != COMPLETE:
        problem = f"The restart cuts streams off in the middle, which clients cannot tell from a fault: {watch.end}"
        fix = "End streams with a complete body when the server is told to stop, as EventSourceMiddleware does"
        findings.append(Finding("restart-cut", url, problem, fix))
    if final := sorted({*statuses} - {HTTPStatus.OK}):
        names = ", ".join(str(int(one)) for one in final)
        problem = f"While the application restarts, clients get {names}, after which an EventSource never tries again"
        fix = f"Answer 200 with a `retry:` and the end instead, as in the configurations of {DOCS}"
        findings.append(Finding("restart-status", url, problem, fix))
    if not back:
        problem = f"The stream was not back {RESTART_SECONDS:g} s after the restart began"
        findings.append(Finding("restart-gone", url, problem, "Look into the log of the application"))
    return findings


async def _come_back(request: StreamRequest, watch: Watch, done: anyio.Event) -> tuple[set[int], bool]:
    """Ask again and again until a stream stays open after the restart.

    Returns:
        The statuses of all answers, and whether a stream did stay open.
    """
    statuses: set[int] = set()
    with anyio.move_on_after(RESTART_SECONDS):
        await watch.until(lambda: watch.end or done.is_set())
        with anyio.move_on_after(PATIENCE):  # a command may return before the old process has ended
            await watch.until(lambda: watch.end)
        while True:
            again = Watch(request)
            await again.run(OPEN_SECONDS)
            statuses.update([] if again.response is None else [again.response.status_code])
            if done.is_set() and again.response is not None and not again.end:
                return statuses, True
            await anyio.sleep(0.05)
    return statuses, False


async def shell(command: str, option: str) -> str:
    """Run a command of the user by the shell; return "", or why the option's command failed."""
    result = await anyio.run_process(command, check=False)
    if not result.returncode:
        return ""
    output = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()
    said = f": {output[-1]}" if output else ""
    return f"the command of {option} ended with exit code {result.returncode}{said}"
