// Clients that follow a run over a network that breaks: `node --input-type=module - URL SNIPPET < runs_in_node.mjs`, in the
// folder of their node_modules. SNIPPET is the function of docs/llm.md that asks by fetch. For each client one line of JSON
// is printed: its name, the text that its user has, and what it says of the end.
import { Chat } from '@ai-sdk/react';
import { Client } from '@langchain/langgraph-sdk';
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';
import { DefaultChatTransport } from 'ai';
import { EventSource } from 'eventsource5';

const [base, snippet] = process.argv.slice(2);
const ask = new Function(`${snippet}; return ask`)();
const json = { 'Content-Type': 'application/json' };
const textOf = message => message.parts.filter(part => part.type === 'text').map(part => part.text ?? part.content).join('');

const clients = {
  async eventsource() {
    const url = `${base}/eventsource/answers`;
    const begun = await fetch(url, { method: 'POST', headers: { ...json, 'Idempotency-Key': 'k' }, body: '{"text": "Why?"}' });
    await begun.body.cancel();
    let text = '';
    const source = new EventSource(`${url}/k`);
    source.onmessage = event => { text += event.data; };
    const end = await new Promise(resolve => source.addEventListener('sse.end', event => resolve(event.data)));
    source.close();
    return [text, JSON.parse(end).state];
  },
  async fetch() {
    let text = '';
    const each = (type, data) => { if (type === 'message') text += data; };
    const state = await ask('Why?', each, { url: `${base}/fetch/answers` });
    return [text, state];
  },
  async 'fetch that is aborted'() {
    const url = `${base}/fetch/answers`, controller = new AbortController(), key = 'aborted';
    const name = await ask('Why?', () => controller.abort(), { url, key, signal: controller.signal }).catch(error => error.name);
    let text = '';
    const state = await ask('Why?', (type, data) => { if (type === 'message') text += data; }, { url, key });
    return [text, `${name}, ${state}`];
  },
  async 'fetch with a key of another question'() {
    return ['', await ask('Why not?', () => {}, { url: `${base}/fetch/answers`, key: 'aborted' }).catch(error => error.message)];
  },
  async ai_sdk() {
    const transport = new DefaultChatTransport({ api: `${base}/ai_sdk/api/chat` });
    const chat = new Chat({ id: 'c', transport });
    await chat.resumeStream();  // nothing to resume
    const before = chat.status;
    await chat.sendMessage({ text: 'Why?' });
    for (let times = 0; chat.status === 'error' && times < 5; times++) await chat.resumeStream();
    const [, answer, ...others] = chat.messages;
    return [textOf(answer), `${before}, ${chat.status}, ${others.length} others`];
  },
  async tanstack() {
    const client = new ChatClient({ connection: fetchServerSentEvents(`${base}/tanstack/api/chat`) });
    await client.sendMessage('Why?');
    return [textOf(client.getMessages().at(-1)), client.getStatus()];
  },
  async langgraph() {
    const client = new Client({ apiUrl: `${base}/langgraph` });
    let text = '', end;
    for await (const part of client.runs.stream('t', 'assistant', { input: { question: 'Why?' }, streamMode: 'custom' })) {
      if (part.event === 'custom') text += part.data.word;
      if (part.event === 'sse.end') end = part.data.state;
    }
    return [text, end];
  },
};

async function read(name) {
  const result = await clients[name]().catch(error => ['', String(error.stack)]);
  console.log(JSON.stringify([name, ...result]));
}

setInterval(() => {}, 1000);  // a client that waits to reconnect does not keep the process
const later = 'fetch with a key of another question';
await Promise.all(Object.keys(clients).filter(name => name !== later).map(read));
await read(later);
process.exit();
