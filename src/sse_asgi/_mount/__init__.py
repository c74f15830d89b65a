"""The HTTP side of a hub: the mountable app, its access rules, polls, publishing by POST, and the middleware.

A request to `EventSourceApp` goes one way through these modules:

    app         checks the origin, then chooses a handler by the path and the method
    cors        says which origins may use the app, and answers preflights
    query       reads how the reader wants its events: `poll`, `wait`, `rewind`, `padding`
    access      authorizes the request, by a ticket (`tickets`) or by `authorize=`; the result is a `grant`
    channels    says which channels the request may have
    reading     subscribes, and answers with a stream (`_stream/`) or a poll (`polling`, `answer`)
    publishing  reads the body of a POST (`bodies`), and publishes
    problem     makes responses of errors

Nothing is subscribed and nothing is published before the origin, the query and the access rules were checked.
"""
