"""A server as the library sees it: one that runs in this event loop, and the facts that hold for all of its kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from starlette.types import Receive

Address = tuple[Any, Any]
Look = Callable[[], bool | None]
WhenQuiet = Callable[[Callable[[], None]], None]


class Server:
    """A server, and the streams that end when it stops.

    Attributes:
        heard: Whether it stops; a stream that begins now should end at once.
        streams: How many there are.
    """

    def __init__(self) -> None:
        """Begin without streams."""
        self.heard = False
        self.streams = 0


class AskedServer(Server, ABC):
    """A server that says whether it stops when it is asked.

    Attributes:
        key: The server's own object, which tells it from others.
        tells_of_signals: Whether asking it is enough to hear of a signal, so that its handlers are left alone.
    """

    tells_of_signals = False

    def __init__(self, key: Any, coroutine: Any) -> None:
        """Ask the server that this coroutine serves with."""
        super().__init__()
        self.key = key
        self._coroutine = coroutine

    @property
    def ended(self) -> bool:
        """Whether it has stopped."""
        return self._coroutine.cr_frame is None

    @property
    def state(self) -> Any:
        """What it hands to its application as the state of the lifespan."""
        return None

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many processes serve the application, this one included."""

    @abstractmethod
    def stops(self) -> bool:
        """Tell whether it stops."""

    def addresses(self) -> list[Address]:
        """Return the addresses that it listens at, as a scope names them."""
        return [address_of(one.getsockname()) for one in self._sockets() if one.fileno() >= 0]

    def _sockets(self) -> Iterable[Any]:
        return ()


def address_of(name: Any) -> Address:
    """Return a socket's name, or `scope["server"]`, as the host and the port, or the path and None."""
    return (name[0], name[1]) if isinstance(name, list | tuple) else (name, None)


def module_of(handler: Any) -> str:
    """Name the module of a signal handler, or of the object of which it is a method."""
    module: str = getattr(handler, "__module__", None) or type(getattr(handler, "__self__", handler)).__module__
    return module


class KnownServer:
    """What is known of one kind of server; a subclass overrides what is true of it.

    Attributes:
        functions: The names of the coroutine functions that serve; `find` is asked of no others.
        steppable: The modules of the objects whose `send` and `receive` may be run outside a task.
    """

    functions: tuple[str, ...] = ()
    steppable: tuple[str, ...] = ()

    def find(self, _frame: FrameType, _coroutine: Any, /) -> AskedServer | None:
        """Return the server that runs in this frame of this coroutine, if it is one of this kind."""
        return None

    def workers(self) -> int:
        """Count the workers where no server can be found; 0 if this kind does not serve here, or does not tell."""
        return 0

    def look(self, _receive: Receive, /) -> Look | None:
        """Return a function that looks at a request without taking a message, if it is one of this kind.

        That function returns True if the client has gone, False if the whole body was taken, None if neither is known.
        """
        return None

    def abort(self, _receive: Receive, /) -> bool:
        """Abort the connection of a request; return False if that cannot be done through its `receive`."""
        return False

    def delayed(self, _number: int, _handler: Any, _when_quiet: WhenQuiet, /) -> Callable[[], None] | None:
        """Return what calls the server's handler of a signal later, if it is one that must not be called at once.

        Args:
            _number: The signal.
            _handler: The handler that was installed.
            _when_quiet: Calls back when every stream has ended.

        Returns:
            A function that the event loop is to call when the signal has come; None if the handler is another's.
        """
        return None
