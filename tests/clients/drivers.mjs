// The clients of npm that run in Node: `node drivers.mjs CLIENT URL`. Each reads all columns at once, as its
// documentation says, and prints what its user sees, one line of JSON for each thing, until it is killed.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const [client, base] = process.argv.slice(2);

const columns = ['job', 'silence', 'before', 'live', 'error', 'deploy', 'gap'];
const NAMED = ['sse.gap', 'sse.error', 'sse.end'];

// An EventSource, whoever made it: a page listens to messages, to those of our events that it wants, and to errors.
function listen(source, say, closed = source.constructor.CLOSED ?? 2) {
  source.addEventListener('message', event => say('message', event.data));
  for (const name of NAMED) source.addEventListener(name, event => say(name, event.data));
  source.addEventListener('error', () => { if (source.readyState === closed) say('closed', ''); });
}

const clients = {
  'eventsource 2': (url, say) => listen(new (require('eventsource2'))(url), say),
  'eventsource 3': async (url, say) => listen(new (await import('eventsource3')).EventSource(url), say),
  'eventsource 4': async (url, say) => listen(new (await import('eventsource4')).EventSource(url), say),
  'eventsource 5': async (url, say) => listen(new (await import('eventsource5')).EventSource(url), say),
  'EventSource of Node': (url, say) => listen(new EventSource(url), say),
  'extended-eventsource': async (url, say) => listen(new (await import('extended-eventsource')).EventSource(url), say),
  'eventsource-client': async (url, say) => {
    const { createEventSource } = await import('eventsource-client');
    const source = createEventSource({
      url,
      onMessage: ({ event, data }) => say(event ?? 'message', data),
      onDisconnect: () => {},
    });
  },
};

process.on('uncaughtException', error => console.log(JSON.stringify(['', 'uncaught', String(error)])));
for (const column of columns) {
  const say = (kind, text) => console.log(JSON.stringify([column, kind, text]));
  await clients[client](`${base}/${column}?client=${encodeURIComponent(client)}`, say);
}
