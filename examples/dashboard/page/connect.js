// Events of an EventSourceApp, also where streams do not pass: then it polls, and tries to stream from time to time.
//
//   const connection = connect({url: "/events/", on: {init(state) {}, delta(change, {id}) {}, state(name) {}}});
//   connection.close();
//
// `on` has a function for each type of event that is wanted, which gets the parsed data. `state` is told "connecting",
// "streaming", "polling", "away" (nobody answers) and "closed" (by close(), or refused). `debug` writes to the console.

const PATIENCE = 5_000;  // milliseconds for a new stream to open
const POLLING = 30_000;  // before a stream is tried again
const TRIES = 2;         // that a stream which was open may fail in a row, before it is polled
const LATER = [408, 425, 429];  // refusals that pass

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

  // Streams for as long as it works. A stream that was open is the browser's to mend, at the time the server told it.
  // Tells whether to stream again at once, because the page is shown again.
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
      for (const type of new Set(["sse.position", ...Object.keys(on)])) {  // which has only an id: where to go on
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

  // Asks once, and waits as the server says; tells whether it worked. A poll also knows why a stream was refused.
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

  // A page that was left is kept, to go back to: it holds none of the six connections to a server.
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
