"""A server as the library sees it: one that runs in this event loop, and the facts about all servers of its kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from starlette.types import Receive, Scope

Address = tuple[Any, Any]
Look = Callable[[], bool | None]
WhenQuiet = Callable[[Callable[[], None]], None]


class Server:
    """A server, and the streams that end when it stops.

    Attributes:
        heard: Whether a shutdown of this server was heard of. A stream that begins then should end at once.
        streams: The number of its streams.
    """

    def __init__(self) -> None:
        """Begin without streams."""
        self.heard = False
        self.streams = 0


class AskedServer(Server, ABC):
    """A server whose own objects say whether it stops.

    Attributes:
        key: The server's own object, which identifies it.
        tells_of_signals: Whether asking the server is enough to learn of a signal. Its handlers are not touched then.
        signals_seen: The value of `signals` when the server was asked last.
    """

    tells_of_signals = False
    signals_seen = 0

    def __init__(self, key: Any, coroutine: Any) -> None:
        """Remember the server's own object, and the coroutine that runs the server."""
        super().__init__()
        self.key = key
        self._coroutine = coroutine

    @property
    def ended(self) -> bool:
        """Whether the server has stopped."""
        return self._coroutine.cr_frame is None

    @property
    def signals(self) -> int:
        """The number of signals to stop that the server has got, if it tells of signals."""
        return 0

    @property
    def state(self) -> Any:
        """The lifespan state that this server gives to its application; None if it is not known."""
        return None

    @property
    @abstractmethod
    def workers(self) -> int:
        """The number of processes that serve the application, this one included."""

    @abstractmethod
    def stops(self) -> bool:
        """Return True if the server stops."""

    def addresses(self) -> list[Address]:
        """Return the addresses at which the server listens, in the form of `scope["server"]`."""
        return [address_of(one.getsockname()) for one in self._sockets() if one.fileno() >= 0]

    def _sockets(self) -> Iterable[Any]:
        return ()


def address_of(name: Any) -> Address:
    """Return the name of a socket, or `scope["server"]`, as (host, port), or as (path, None)."""
    return (name[0], name[1]) if isinstance(name, list | tuple) else (name, None)


def module_of(handler: Any) -> str:
    """Return the name of the module of a signal handler, or of the object whose method it is."""
    module: str = getattr(handler, "__module__", None) or type(getattr(handler, "__self__", handler)).__module__
    return module


class KnownServer:
    """The facts about one kind of server. A subclass overrides the answers that differ for its kind.

    Attributes:
        functions: The names of the coroutine functions that serve. `find` is called for the frames of these only.
        steppable: The modules of the objects whose `send` and `receive` also work outside a task.
    """

    functions: tuple[str, ...] = ()
    steppable: tuple[str, ...] = ()

    def find(self, _frame: FrameType, _coroutine: Any, /) -> AskedServer | None:
        """Return the server that runs in this frame of this coroutine; None if it is of another kind."""
        return None

    def workers(self) -> int:
        """Count the workers where no running server is found; 0 if the number is unknown, or another kind serves."""
        return 0

    def look(self, _receive: Receive, /) -> Look | None:
        """Return a function that looks at a request without taking a message; None if the request is of another kind.

        That function returns True if the client has disconnected, False if the whole body was taken, and None if it
        cannot say either.
        """
        return None

    def abort(self, _receive: Receive, /) -> bool:
        """Abort the connection of a request; return False if its `receive` does not lead to the connection."""
        return False

    def breaks_off(self, _scope: Scope, _receive: Receive, /) -> bool | None:
        """Return True if an incomplete response is broken off for its client alone; None if another kind serves."""
        return None

    def close(self, _receive: Receive, /) -> Callable[[], bool] | None:
        """End a response without completing it, when the client has taken the bytes that were sent.

        Returns:
            A function that returns True when the server has seen that. From then on the server discards messages, and
            does not complain about the incomplete response. None if `receive` does not lead to the connection.
        """
        return None

    def delayed(self, _number: int, _handler: Any, _when_quiet: WhenQuiet, /) -> Callable[[], None] | None:
        """Return a function that calls the server's signal handler later, if the handler must wait for the streams.

        Args:
            _number: The signal.
            _handler: The handler that was installed.
            _when_quiet: Calls its argument when every stream has ended.

        Returns:
            A function that the event loop calls after the signal; None if the handler is another server's.
        """
        return None
