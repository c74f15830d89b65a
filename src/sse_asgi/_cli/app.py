"""The commands' arguments, their help, and their exit codes: 0, 1 after an error or with findings, 2 for arguments.

Typer makes Ctrl-C the exit code 130, and a closed pipe (`| head`) a quiet end.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

import anyio
import typer

from .bench import Bench, allow_readers, report
from .doctor import Examination, Plan, print_report
from .following import Follower, StreamError
from .request import StreamRequest
from .screen import notes
from .tail import tail

T = TypeVar("T")
WRONG_ARGUMENTS = 2

Url = Annotated[str, typer.Argument(metavar="URL", help="Address of the stream.", show_default=False)]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header of each request. Repeat it for more."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", metavar="TEXT", help="Body of a POST. @FILE reads a file, @- standard input."),
]
Method = Annotated[
    str, typer.Option("--method", "-X", metavar="METHOD", help="Default: GET, or POST with --data.", show_default=False)
]
Insecure = Annotated[bool, typer.Option("--insecure", "-k", help="Accept any certificate.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
TimeField = Annotated[
    str | None,
    typer.Option(
        "--time-field",
        metavar="NAME",
        help="The field of the events' JSON data that has the time of publication, for the lag: seconds or "
        "milliseconds since 1970, or ISO 8601. A hub on Redis needs none: its ids have the time.",
    ),
]


def run(arguments: Sequence[str], prog: str) -> int:
    """Run one of the commands, and return its exit code.

    Args:
        arguments: The command's name, and its arguments.
        prog: The name of the program, for its help.
    """
    try:
        return _commands()(arguments, prog_name=prog, standalone_mode=False) or 0
    except (ValueError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        command = f"{prog} {arguments[0]}"
        print(f"{command}: {text.rstrip('.')}. See: {command} --help", file=sys.stderr)  # noqa: T201
        return WRONG_ARGUMENTS
    except StreamError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


def _commands() -> typer.Typer:
    app = typer.Typer(
        help="Read a stream of Server-Sent Events, measure it, or find out what is wrong with it.",
        add_completion=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("tail")(_tail)
    app.command("doctor")(_doctor)
    app.command("bench")(_bench)
    return app


def _tail(
    url: Url,
    *,
    header: Headers = None,
    data: Data = None,
    method: Method = "",
    last_event_id: Annotated[
        str, typer.Option("--last-event-id", metavar="ID", help="Begin after this event.", show_default=False)
    ] = "",
    time_field: TimeField = None,
    as_json: Json = False,
    insecure: Insecure = False,
) -> None:
    """Print the events of a stream as they arrive: time, type, id, lag and data.

    After an interruption it reconnects with the last id, as a browser does, and says so on stderr. It ends with exit
    code 0 at the stream's end (the event sse.end, or a 204), with 1 if the server refuses, and with 130 at Ctrl-C.

    Example: sse-asgi tail https://example.com/events/?channel=news
    """
    request = StreamRequest.of(url, headers=header or (), data=data, method=method, insecure=insecure)
    follower = Follower(request, last_event_id=last_event_id)
    _wait_for(lambda: tail(follower, as_json=as_json, time_field=time_field))


def _doctor(
    url: Url,
    *,
    direct: Annotated[
        str | None,
        typer.Option("--direct", metavar="URL", help="The same stream without the proxies: names the hop at fault."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", min=1.0, help="How long to watch. Many proxies cut after 60 s."),
    ] = 65.0,
    publish: Annotated[
        str | None,
        typer.Option("--publish", metavar="COMMAND", help="A shell command that sends an event; run three times."),
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option("--restart", metavar="COMMAND", help="A shell command that restarts the application; run last."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option("--origin", metavar="ORIGIN", help="Try CORS for pages of this origin: https://your.page"),
    ] = None,
    header: Headers = None,
    data: Data = None,
    method: Method = "",
    as_json: Json = False,
    insecure: Insecure = False,
) -> int:
    """Find out what is wrong with a deployed stream, where, and what to change.

    It opens the stream with and without compression, watches what arrives for --wait seconds, tries HEAD, CORS and a
    resume by Last-Event-ID, and with --restart the farewell. The exit code is 1 if it found a problem.

    Example: sse-asgi doctor https://example.com/events/ --direct http://10.0.0.5:8000/events/
    """
    request = StreamRequest.of(url, headers=header or (), data=data, method=method, insecure=insecure)
    plan = Plan(
        request,
        direct=None if direct is None else replace(request, url=StreamRequest.of(direct).url),
        wait=wait,
        origin=origin,
        publish=publish,
        restart=restart,
    )
    _say(f"Watching {url} for {wait:g} s ...", quietly=as_json)
    return print_report(_wait_for(Examination(plan).run), as_json=as_json)


def _bench(
    url: Url,
    *,
    readers: Annotated[
        int, typer.Option("--readers", "-n", metavar="COUNT", min=1, max=50_000, help="How many connections to open.")
    ] = 100,
    seconds: Annotated[
        float,
        typer.Option("--seconds", "-s", metavar="SECONDS", min=0.1, max=86_400, help="How long all of them read."),
    ] = 10.0,
    header: Headers = None,
    data: Data = None,
    method: Method = "",
    time_field: TimeField = None,
    as_json: Json = False,
    insecure: Insecure = False,
) -> int:
    """Open many readers of a stream, and measure connects a second, and the percentiles of how late events arrive.

    The lag is counted from the publication if the events tell its time (--time-field), else from the first reader that
    got the event. Publish while it runs. The exit code is 1 if a reader failed.

    Example: sse-asgi bench https://example.com/events/ --readers 500 --seconds 30
    """
    request = StreamRequest.of(url, headers=header or (), data=data, method=method, insecure=insecure)
    allow_readers(readers)
    work = Bench(request, readers=readers, seconds=seconds, time_field=time_field)
    _say(f"Opening {readers} readers of {url}, which then read for {seconds:g} s ...", quietly=as_json)
    _wait_for(work.run)
    return report(work.measurement, as_json=as_json)


def _say(text: str, *, quietly: bool) -> None:
    if not quietly:
        notes().print(text, style="dim")


def _wait_for(work: Callable[[], Awaitable[T]]) -> T:
    return anyio.run(work)
