// Reads a stream while its page is shown, and returns a function that stops.
function read(url, listeners, options) {
  let source, timer, stopped = false, failures = 0, last = "";

  function open() {
    const address = new URL(url, location);
    if (last) address.searchParams.set("last_event_id", last);
    source = new EventSource(address, options);
    source.addEventListener("open", () => { failures = 0; });
    source.addEventListener("error", () => {  // the browser reconnects by itself, except after a refusal
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, Math.min(60, 2 ** failures++) * (500 + 500 * Math.random()));
    });
    for (const type of new Set(["sse.position", "sse.end", ...Object.keys(listeners)])) {
      source.addEventListener(type, event => {
        last = event.lastEventId || last;
        if (type === "sse.end") stop();
        listeners[type]?.(event);
      });
    }
  }

  function close() { clearTimeout(timer); source.close(); }
  function stop() { stopped = true; close(); }

  // The browser keeps a page that the user has left: release the stream's connection, one of six to a server.
  addEventListener("pagehide", close);
  addEventListener("pageshow", event => { if (event.persisted && !stopped) open(); });
  open();
  return stop;
}
