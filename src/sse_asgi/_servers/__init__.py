"""The ASGI servers: a file for each one with what is known of it, and what the library asks of any of them.

No ASGI message says that a server stops, how many workers it has, or which task may call `send`. So each server's file
subclasses KnownServer and says it, with the observation that forced each line. `known.py` lists these files; to add a
server is to add a file and its line there. A server that is not listed works as well, by signals and in tasks.
"""
