"""The event loop: wake-ups, the shared timer, helper tasks."""
