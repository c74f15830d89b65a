"""The client side of the command line: `tail`, `bench` and `doctor`, which need the extra `cli`.

`demo` and `publish` stay in `__main__`, by argparse, because they must work where only the library is installed: in the
image of a job that publishes, or from a checkout. The commands here read a stream as any client does, so they know
nothing of the library's server side but its reserved event types.
"""
