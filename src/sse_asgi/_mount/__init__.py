"""The HTTP doors of a hub: the mountable app and the middleware."""
