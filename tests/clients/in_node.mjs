// The clients of npm that run in Node: `node in_node.mjs URL CLIENT...`. Each client reads all columns at once, as its own
// documentation says. For each thing that the client's user sees one line of JSON is printed, until this process is killed.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const [base, columns, ...names] = process.argv.slice(2);
const NAMED = ['sse.gap', 'sse.error', 'sse.end'];

// A page listens to messages, to those events of the library that it needs, and to errors.
function listen(source, say) {
  source.addEventListener('message', event => say('message', event.data));
  for (const name of NAMED) source.addEventListener(name, event => say(name, event.data));
  source.addEventListener('error', () => { if (source.readyState === 2) say('closed', ''); });
}

const clients = {
  'eventsource 2.0.2': (url, say) => listen(new (require('eventsource2'))(url), say),
  'eventsource 3.0.7': async (url, say) => listen(new (await import('eventsource3')).EventSource(url), say),
  'eventsource 4.1.1': async (url, say) => listen(new (await import('eventsource4')).EventSource(url), say),
  'eventsource 5': async (url, say) => listen(new (await import('eventsource5')).EventSource(url), say),
  'extended-eventsource': async (url, say) => listen(new (await import('extended-eventsource')).EventSource(url), say),
  'eventsource-client': async (url, say) => {
    const { createEventSource } = await import('eventsource-client');
    createEventSource({ url, onMessage: ({ event, data }) => say(event ?? 'message', data) });
  },
};

for (const name of names) {
  for (const column of columns.split(',')) {
    const say = (kind, text) => console.log(JSON.stringify([name, column, kind, text]));
    await clients[name](`${base}/${column}?client=${encodeURIComponent(name)}`, say);
  }
}
