"""A chat for the browser: FastAPI, one page, and sse_asgi between them."""
