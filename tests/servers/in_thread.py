"""uvicorn.Server in a thread, stopped by the main thread, as in an application with another main loop."""

import signal
import sys
import threading

import uvicorn


def main() -> None:
    """Serve until a signal arrives."""
    server = uvicorn.Server(uvicorn.Config("app:app", port=int(sys.argv[1]), log_level="warning"))
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    signal.signal(signal.SIGINT, lambda *_: setattr(server, "should_exit", True))
    thread = threading.Thread(target=server.run)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
