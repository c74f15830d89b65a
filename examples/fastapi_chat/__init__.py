"""A chat in the browser, made of FastAPI, sse_asgi and one page."""
