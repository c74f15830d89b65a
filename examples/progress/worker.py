"""Makes the report in a process that is not a web server, such as a cron job; the pages of progress.py show it.

    export SSE_BACKEND_URL=redis://localhost    # for both
    python examples/progress/worker.py

If the report is being made already, this waits for its end. It prints how the report has ended.
"""

from progress import KEPT_SECONDS, KEY, report

from sse_asgi import Publisher

if __name__ == "__main__":
    with Publisher() as publisher:
        print(publisher.run(KEY, report, ttl=KEPT_SECONDS))  # noqa: T201
