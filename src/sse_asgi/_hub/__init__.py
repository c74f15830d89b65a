"""The hub: channels, subscriptions, and how an event reaches its readers."""
