"""The page of each client that runs in a browser, written as the client's own documentation shows it.

`say(column, kind, text)` notes a thing that the user sees.
"""

from datastar_py.consts import FragmentMergeMode
from datastar_py.sse import ServerSentEventGenerator

from sse_asgi import ServerSentEvent

START = """<!doctype html><title>.</title><meta charset="utf-8">
<script>
const CLIENT = new URLSearchParams(location.search).get('client');
const COLUMNS = new URLSearchParams(location.search).get('columns').split(',');
const said = [];
const say = (column, kind, text) => said.push([CLIENT, column, kind, text]);
const url = column => `/${column}?client=${encodeURIComponent(CLIENT)}`;
function listen(source, column) {
  source.addEventListener('message', event => say(column, 'message', event.data));
  for (const name of ['sse.gap', 'sse.error', 'sse.end'])
    source.addEventListener(name, event => say(column, name, event.data));
  source.addEventListener('error', () => { if (source.readyState === 2) say(column, 'closed', ''); });
}
function watch(element) {  // reports each element that is put into this one
  new MutationObserver(changes => changes.forEach(({ addedNodes }) => addedNodes.forEach(node =>
    say(element.id, 'message', node.textContent)))).observe(element, { childList: true });
}
</script>
"""

PAGES = {
    **dict.fromkeys(
        ("EventSource (Chromium)", "EventSource (Firefox)", "EventSource (WebKit)"),
        "<script>for (const column of COLUMNS) listen(new EventSource(url(column)), column);</script>",
    ),
    "event-source-polyfill": """<script src="/modules/event-source-polyfill/src/eventsource.js"></script>
<script>for (const column of COLUMNS) listen(new EventSourcePolyfill(url(column)), column);</script>""",
    "sse.js": """<script type="module">
import { SSE } from '/modules/sse.js/lib/sse.js';
for (const column of COLUMNS) {
  const source = new SSE(url(column), { autoReconnect: true, reconnectDelay: 100 });
  listen(source, column);
  // Its documentation closes the source where the application knows the end.
  source.addEventListener('sse.end', () => source.close());
}
</script>""",
    "@microsoft/fetch-event-source": """<script src="/bundles/fetch-event-source.js"></script><script>
class RetriableError extends Error {}
for (const column of COLUMNS) {
  let ended = false;
  bundled.fetchEventSource(url(column), {
    openWhenHidden: true,
    onmessage({ event, data }) { say(column, event || 'message', data); ended ||= event === 'sse.end'; },
    onclose() { if (!ended) throw new RetriableError(); },  // its documentation: the server closed unexpectedly
    onerror(error) { if (!(error instanceof RetriableError || error instanceof TypeError)) throw error; },
  }).then(() => say(column, 'closed', ''), error => say(column, 'rejected', String(error)));
}
</script>""",
    "htmx 2": """<script src="/browser/htmx.org/dist/htmx.js"></script>
<script src="/browser/htmx-ext-sse/dist/sse.js"></script>
<body><script>
for (const column of COLUMNS) document.body.insertAdjacentHTML('beforeend', `<div id="${column}" hx-ext="sse"
  sse-connect="${url(column)}" sse-swap="message,sse.gap" sse-close="sse.end" hx-swap="beforeend"></div>`);
document.querySelectorAll('div').forEach(watch);
addEventListener('htmx:sseClose', event => say(event.target.id, 'closed', ''), true);
</script>""",
    "htmx 4": """<script src="/browser/htmx4/dist/htmx.js"></script>
<script src="/browser/htmx4/dist/ext/hx-sse.js"></script>
<body><script>
for (const column of COLUMNS) document.body.insertAdjacentHTML('beforeend', `<div id="${column}"
  hx-sse:connect="${url(column)}" hx-sse:close="sse.end" hx-swap="beforeend"></div>`);
document.querySelectorAll('div').forEach(watch);
addEventListener('htmx:sse:close', event => say(event.target.id, 'closed', ''), true);
</script>""",
    "Turbo": """<script type="module">
import { connectStreamSource } from '/modules/@hotwired/turbo/dist/turbo.es2017-esm.js';
for (const column of COLUMNS) {
  document.body.insertAdjacentHTML('beforeend',
    `<div id="${column}"></div><turbo-stream-source src="${url(column)}"></turbo-stream-source>`);
}
document.querySelectorAll('div').forEach(watch);
</script><body>""",
    "Datastar": """<script type="module" src="/modules/@starfederation/datastar/dist/datastar.js"></script>
<body><script>
for (const column of COLUMNS) document.body.insertAdjacentHTML('beforeend',
  `<div id="${column}"></div><p data-on-load="@get('${url(column)}', {openWhenHidden: true})"></p>`);
document.querySelectorAll('div').forEach(watch);
</script>""",
}


def page_of(client: str) -> str:
    return START + PAGES[client]


def event_for(client: str, column: str, text: str) -> ServerSentEvent:
    """Return a text as an event for this client."""
    if client.startswith("htmx"):
        return ServerSentEvent(f"<i>{text}</i>")
    if client == "Turbo":
        element = f'<turbo-stream action="append" target="{column}"><template><i>{text}</i></template></turbo-stream>'
        return ServerSentEvent(element)
    if client == "Datastar":
        append = FragmentMergeMode.APPEND
        frame = ServerSentEventGenerator.merge_fragments(f"<i>{text}</i>", selector=f"#{column}", merge_mode=append)
        return ServerSentEvent.parse(frame)
    return ServerSentEvent(text)
