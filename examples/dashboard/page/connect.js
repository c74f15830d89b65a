// Reads events of an EventSourceApp. If a proxy blocks streams, it polls, and tries to stream again from time to time.
//
//   const connection = connect({url: "/events/", on: {init(state) {}, delta(change, {id}) {}, state(name) {}}});
//   connection.close();
//
// `on` has a function for each type of event, which gets the parsed data. The function `state` gets "connecting",
// "streaming", "polling", "away" (no answer) and "closed" (by close(), or refused). `debug` logs to the console.

const PATIENCE = 5_000;  // milliseconds that a new stream may take to open
const POLLING = 30_000;  // milliseconds of polling before the next attempt to stream
const TRIES = 2;         // failures in a row after which an open stream is given up
const LATER = [408, 425, 429];  // refusals that are temporary

export function connect({url, on, debug = false}) {
  let source, last = "", retry = 2000, state, restart = () => {};
  const listening = new AbortController();

  const log = (...what) => debug && console.debug("connect:", ...what);

  function enter(next) {
    if (next === state || state === "closed") return;
    state = next;
    log(state);
    on.state?.(state);
  }

  function address(parameters = {}) {
    const address = new URL(url, location.href);
    if (last) address.searchParams.set("last_event_id", last);
    for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
    return address;
  }

  function dispatch(type, text, id) {
    if (state === "closed") return;
    last = id || last;
    log(type, id, text);
    try {
      if (type !== "state") on[type]?.(JSON.parse(text), {type, id});
    } catch (error) {
      reportError(error);
    }
  }

  // Streams until it fails. The browser reconnects a stream that was open, after the time that the server has set.
  // Resolves to true if a new stream should begin at once, because the page is shown again.
  function stream() {
    return new Promise(resolve => {
      let failures = TRIES;
      const timer = setTimeout(giveUp, PATIENCE);
      source = new EventSource(address());
      source.onopen = () => { clearTimeout(timer); failures = 0; enter("streaming"); };
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED || ++failures >= TRIES) giveUp();
        else enter("connecting");
      };
      for (const type of new Set(["sse.position", ...Object.keys(on)])) {  // only its id counts
        source.addEventListener(type, ({data, lastEventId}) => data === undefined || dispatch(type, data, lastEventId));
      }

      function end(again) {
        clearTimeout(timer);
        source.close();
        resolve(again);
      }

      function giveUp() { end(false); }
      restart = () => end(true);
    });
  }

  // Polls once, then waits as the server says; resolves to true if the poll worked. Its status tells a refusal.
  async function poll() {
    let answer, content;
    try {
      answer = await fetch(address({poll: 1}), {headers: {Accept: "application/json"}});
      content = answer.status === 200 ? await answer.json() : null;
    } catch (error) {
      log(error);
    }
    if (answer?.status === 204 || answer?.status >= 400 && answer.status < 500 && !LATER.includes(answer.status)) {
      log("refused", answer.status);
      enter("closed");
      return false;
    }
    enter(content ? "polling" : "away");
    for (const {event, data, id} of content?.events ?? []) dispatch(event, data, id);
    last = content?.last_event_id ?? last;
    retry = content?.retry ?? retry;
    if (!content?.more) await new Promise(resolve => setTimeout(resolve, retry * (0.75 + Math.random() / 2)));
    return content !== null && content !== undefined;
  }

  async function run() {
    enter("connecting");
    while (state !== "closed") {
      if (await stream()) continue;
      const until = Date.now() + POLLING;
      while (state !== "closed" && Date.now() < until && await poll());
    }
  }

  // The browser keeps a page that the user has left: release its connection, one of six to a server.
  addEventListener("pagehide", () => source.close(), {signal: listening.signal});
  addEventListener("pageshow", event => { if (event.persisted) restart(); }, {signal: listening.signal});

  run();
  return {
    close() {
      enter("closed");
      listening.abort();
      source.close();
    },
  };
}
