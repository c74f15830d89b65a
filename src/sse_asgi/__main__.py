"""`python -m sse_asgi`, also called `sse-asgi`: a chat to try it, and publishing from a shell."""

import argparse
import logging
import os
import sys

from . import _demo
from .exceptions import SSEError
from .publisher import Publisher

MAX_PORT = 65535
INTERRUPTED = 130  # as shells have it


def main() -> None:
    """Run the command that is asked for; without one it is the chat."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["demo", *arguments]
    options = _parser().parse_args(arguments)
    if options.command == "demo":
        _demo.run(options.host, options.port)
    else:
        _publish(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sse_asgi", description="Server-Sent Events for ASGI.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run a chat (what runs without a command)")
    host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "8000"
    demo.add_argument("--host", default=host, help="where to listen (default: HOST, else 127.0.0.1)")
    demo.add_argument("--port", default=port, type=_port, help="0 is any free one (default: PORT, else 8000)")
    publish = commands.add_parser("publish", help="publish one event, and print its id")
    publish.add_argument("url", help="where the hub is, such as redis://localhost")
    publish.add_argument("channel", help="where to publish")
    publish.add_argument("data", help="the text; - reads it from standard input")
    publish.add_argument("--event", help="the type")
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    msg = f"{text!r} is no port: PORT or --port must be a number from 0 to {MAX_PORT}"
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
    """Keeps what is logged, which is why something failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    main()
