"""The command `python -m sse_asgi`, also installed as `sse-asgi`: a demo, publishing, and the client's side.

The commands of the client's side are in `_cli`, because they need the extra `cli`.
"""

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from . import _demo
from .exceptions import SSEError
from .publisher import Publisher

MAX_PORT = 65535
INTERRUPTED = 130  # the exit code that shells give a command that Ctrl-C ended
WITH_CLI = {
    "tail": "print the events of a stream as they arrive",
    "bench": "measure a stream with many readers",
    "doctor": "find out what is wrong with a deployed stream",
}


def main() -> None:
    """Run the command of the arguments; without a command, run the demo."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["demo", *arguments]
    if arguments[0] in WITH_CLI:
        sys.exit(_run_with_cli(arguments))
    options = _parser().parse_args(arguments)
    if options.command == "demo":
        _demo.run(options.host, options.port)
    else:
        _publish(options)


def _prog() -> str:
    """Return the command that the user has typed."""
    name = Path(sys.argv[0]).name
    return "python -m sse_asgi" if name == "__main__.py" else name


def _run_with_cli(arguments: list[str]) -> int:
    try:
        app = importlib.import_module("._cli.app", __package__)
    except ImportError as error:
        sys.exit(f'The command {arguments[0]} needs {error.name}: pip install "sse-asgi[cli]"')
    except KeyboardInterrupt:  # while it is imported; later it is typer that handles it
        return INTERRUPTED
    code: int = app.run(arguments, _prog())
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_prog(),
        description="Server-Sent Events for ASGI: run a demo, publish an event, or look at a stream as its clients do.",
        epilog=f"Each command has its own help: {_prog()} tail --help",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="run a chat in the browser (the default)", description="Run a chat in the browser."
    )
    host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "8000"
    demo.add_argument("--host", default=host, help="address to listen on (default: $HOST, else 127.0.0.1)")
    demo.add_argument(
        "--port", default=port, type=_port, help="port to listen on; 0 takes a free port (default: $PORT, else 8000)"
    )
    publish = commands.add_parser(
        "publish",
        help="publish one event and print its id",
        description="Publish one event to a hub on Redis, and print the event's id.",
    )
    publish.add_argument("url", help="the hub's backend, such as redis://localhost")
    publish.add_argument("channel", help="name of the channel")
    publish.add_argument("data", help="data of the event; - reads it from standard input")
    publish.add_argument("--event", metavar="TYPE", help="type of the event (default: message)")
    for name, text in WITH_CLI.items():
        commands.add_parser(name, help=text)
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    msg = f"PORT or --port must be a number from 0 to {MAX_PORT} (got {text!r})"
    raise argparse.ArgumentTypeError(msg)


def _publish(options: argparse.Namespace) -> None:
    log = _Log()
    logging.getLogger("sse_asgi").addHandler(log)
    try:
        data = sys.stdin.buffer.read().removesuffix(b"\n") if options.data == "-" else options.data
        with Publisher(options.url) as publisher:
            position = publisher.publish(options.channel, data, event=options.event)
    except (ValueError, SSEError) as error:
        sys.exit(". ".join([str(error), *log.lines]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    for line in log.lines:
        print(line, file=sys.stderr)  # noqa: T201
    print(position or "")  # noqa: T201


class _Log(logging.Handler):
    """Keeps the warnings that are logged, because they explain why publishing failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    main()
