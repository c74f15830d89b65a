"""The hub: channels, subscriptions, and the way of an event to its readers.

`Hub.publish` gives an event to the backend, which stores it and delivers it to the registry of every connected hub. The
registry offers it to each subscription of its channels (`registry`, `subscription`). Other modules have one task each:
opening and closing (`opening`), calls from other event loops (`home`), queued events (`outbox`), pattern channels
(`patterns`), listed identities (`presence`), and disconnect orders (`orders`).

Tasks and timers that outlive a request run in an empty context. The context variables of the request that started them
are then freed with the request.
"""
