"""The ASGI servers: which one runs, whether it stops, how many workers it has, and how a connection is aborted.

No ASGI message says that a server is about to stop, how many workers it has, or in which task `send` may be called.
Each server has a file, with a subclass of KnownServer that answers these questions, and the observation that made each
answer necessary. `known.py` lists these classes. To add a server, add a file and its line in that list. A server that
is not listed works too: its signals are heard, and all messages are sent in tasks.

- **Servers are asked directly.** The frames of their tasks lead to their objects, which are looked at every
  POLL_SECONDS. Signals alone would miss a server whose limit of requests is reached, a server in a thread, and a worker
  whose parent process alone got the signal.
- **Signal handlers are chained.** Ours runs first and calls the one that was installed. `loop.add_signal_handler` would
  replace it. Where uvicorn can be asked, no handler is touched.
- **Changes are undone.** Nothing outside the library is changed before the first stream. Each change is undone with the
  last one.
- **A stalled client's socket is found by its two addresses,** unless its transport can be reached. Observed: otherwise
  gunicorn, hypercorn and granian wait for that client until they are killed, with 4 MB in the kernel for each. Only a
  socket with bytes that the client has not taken is closed, because an address may come from a proxy's header.
"""
