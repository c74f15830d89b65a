// See sse-asgi.d.ts and README.md. MIT licence.

const PATIENCE = 5_000, SILENCE = 90_000, LONGEST = 30_000;  // milliseconds
const LATER = /408|425|429|503/;
const KINDS = {
  headers: "object or function", method: "string", body: "string or object", credentials: "string",
  share: "boolean or string", on: "object", state: "function",
};

function need(fact, text) {
  if (!fact) throw new TypeError(text);
}

export function connect(url, options = {}) {
  const {headers, method = "GET", body, credentials, share, on = {}, state: report} = options;
  const safe = /^get$/i.test(method);
  for (const name in options) {
    const kind = KINDS[name] ?? "left out: the options are " + Object.keys(KINDS);
    need((kind + "undefined").includes(typeof options[name]), `${name} must be ${kind}`);
  }
  need(safe ? !body : !share, 'body needs method: "POST", share needs "GET"');
  need(!headers || share !== true, "share must name the user if there are headers");

  const address = new URL(url, document.baseURI), group = share && navigator.locks && address + " " + share;
  const page = new AbortController(), target = new EventTarget();
  let last = "", retry = 1_000, silence = SILENCE, status = 0, turn = 0, until = 0, rounds = 0, failures = 0;
  let state, renewed, works, member, say, leading, held, misses, attempt;
  for (const type in on) {
    need(on[type]?.call, `on.${type} must be a function`);
    target.addEventListener(type, on[type]);
  }

  function enter(next, wait, error) {
    if (state === "closed" || next === state && !error) return;
    state = next;
    if (leading) say({state, status});
    if (report) queueMicrotask(() => report(next, {status, wait, error}));
  }

  function take(event) {
    const {type, data, id} = event;
    if (group && id) {
      const [life, place] = id.split("-"), [current, reached] = last.split("-");
      if (life === current && +place <= +reached) return;
    }
    last = id ?? last;
    if (leading) say({event});
    target.dispatchEvent(new MessageEvent(type, {data, lastEventId: last}));
    if (type === "sse.end") finish();
  }

  // https://html.spec.whatwg.org/#event-stream-interpretation
  async function read(body, signal, arrived) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", data = "", type, id;
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      arrived(value);
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (signal.aborted) return;
        const [, field, text = ""] = /^([^:]*)(?:: ?(.*))?/s.exec(line);
        if (field === "data") data += text + "\n";
        if (field === "event") type = text;
        if (field === "id" && !/\0/.test(text)) id = text;
        if (field === "retry" && /^\d{1,9}$/.test(text)) retry = +text;
        if (line) continue;
        if (data) take({type: type || "message", data: data.slice(0, -1), id});
        last = id ?? last;
        data = "";
        type = id = undefined;
      }
    }
  }

  async function request(polls, signal) {
    let heard, patience = safe && !polls ? PATIENCE : Infinity;
    const watch = setInterval(() => {
      const quiet = Date.now() - heard;
      if (quiet > patience) poll(), again();
      else if (quiet > silence) silence *= 2, again();
    }, 1_000);
    try {
      const to = new URL(address), given = new Headers(await (headers?.call ? headers({status}) : headers));
      if (polls) to.search += "&poll=1&wait=" + (state === "polling" ? 20 : 0);
      given.set("Accept", "text/event-stream");
      if (last) given.set("Last-Event-ID", unescape(encodeURIComponent(last)));
      status = 0;
      heard = Date.now();
      const answer = await fetch(to, {method, headers: given, body, credentials, cache: "no-store", signal});
      ({status} = answer);
      if (status === 401 && headers?.call && !renewed) renewed = true, attempt.abort();
      else if (/^4|204/.test(status) && !LATER.test(status)) finish();
      need(/^text\/event-stream/.test(answer.headers.get("Content-Type")), `${to} answered ${status}, no stream`);
      renewed = false;
      if (!last) patience = Infinity;
      if (polls && !held) enter("polling");
      await read(answer.body, signal, text => {
        const quiet = Date.now() - heard;
        if (quiet > 999 && state === "streaming" && /^:|^event: sse\.position/m.test(text)) silence = 2 * quiet + 2_000;
        heard += quiet;
        patience = Infinity;
        if (polls) return;
        works = rounds = failures = 0;
        enter("streaming");
      });
    } finally {
      clearInterval(watch);
    }
  }

  const poll = () => { until = Date.now() + LONGEST * 2 ** rounds++; };

  async function run() {
    attempt?.abort();
    let wait = 0, error;
    for (const mine = ++turn; mine === turn;) {
      const {signal} = attempt = new AbortController();
      if (!held && (error || state !== "polling")) enter(error ? "away" : "connecting", wait / 1_000, error);
      if (wait) await new Promise(resolve => {
        setTimeout(resolve, wait);
        signal.addEventListener("abort", resolve);
      });
      const polls = held || Date.now() < until || failures && failures % 2 === 0;
      wait = retry * (1 + Math.random() / 2);
      error = 0;
      try {
        await request(polls, signal);
        if (!safe) return finish();
        if (polls) works = 1, failures = 0;
        if (held && retry) {
          const news = held;
          held = 0;
          return news.forEach(hear);
        }
      } catch (reason) {
        error = reason;
      }
      if (signal.aborted) wait = error = 0;
      if (!error) continue;
      if (!safe && !last && !LATER.test(status)) return finish(error);
      if (polls) until = 0;
      else if (works) poll();
      wait = Math.random() * Math.min(LONGEST, (retry || 1_000) * 2 ** ++failures);
    }
  }

  function hear(news) {
    if (news.event) return take(news.event);
    ({status} = news);
    news.state === "closed" ? finish() : enter(news.state);
  }

  // Tabs queue for a lock. Its holder leads: it streams, and passes the events on.
  function join() {
    const {signal} = member;
    const hold = how => navigator.locks.request(group, how, () => signal.aborted || new Promise(done => {
      signal.addEventListener("abort", done);
      leading = 1;
      held = 0;
      say({from: last});
      run();
    })).catch(() => {
      if (signal.aborted) return;
      if (leading) stop(), start();
      else held = 0, run();
    });
    const timer = setInterval(() => {
      if (leading) return;
      if (misses++) say();
      if (misses > 3) misses = 0, hold({steal: true});
    }, 300 + 100 * Math.random());
    const channel = new BroadcastChannel(group);
    say = news => channel.postMessage(news);
    channel.onmessage = ({data: news}) => {
      if (leading) return news || say({state, status});
      if (!news) return;
      misses = 0;
      if (news.from === undefined) held ? held.push(news) : hear(news);
      else if (held) attempt?.abort();
      else if (news.from !== last) held = [], run();
    };
    signal.addEventListener("abort", () => { channel.close(); clearInterval(timer); });
    held = [];
    hold({signal});
    say();
    setTimeout(() => signal.aborted || leading || run(), 50);
  }

  function start() {
    if (member || page.signal.aborted) return;
    member = new AbortController();
    misses = 0;
    group ? join() : run();
  }

  function stop() {
    turn++;
    leading = held = 0;
    attempt?.abort();
    member?.abort();
    member = undefined;
  }

  function finish(error) {
    enter("closed", 0, error);
    page.abort();
    stop();
  }

  const again = () => { if (safe || last) attempt?.abort(); };
  const leave = () => { if (safe || last) stop(); };
  const acts = {pagehide: leave, freeze: leave, pageshow: start, resume: start, online: again, offline: again};
  for (const name in acts) addEventListener(name, acts[name], {signal: page.signal, capture: true});
  start();
  return {close() { stop(); finish(); }};
}
