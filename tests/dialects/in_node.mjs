// The clients of npm: `node --input-type=module - URL SCENARIO,... < in_node.mjs`, in the folder of their node_modules. Each
// client reads each scenario as its own documentation says. For each of them one line of JSON is printed: the client, the
// scenario, the text that its user has, the class of the error, and its message.
import Anthropic from '@anthropic-ai/sdk';
import { HttpAgent } from '@ag-ui/client';
import { DefaultChatTransport, readUIMessageStream } from 'ai';
import OpenAI from 'openai';

const [base, scenarios] = process.argv.slice(2);
const messages = [{ role: 'user', content: 'x' }];

const clients = {
  'openai of npm': ['openai', async (baseURL, say) => {
    const client = new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: 'm', messages, stream: true });
    for await (const chunk of stream) say(chunk.choices[0].delta.content ?? '');
  }],
  'anthropic of npm': ['anthropic', async (baseURL, say) => {
    const client = new Anthropic({ baseURL, apiKey: 'x', maxRetries: 0 });
    const stream = client.messages.stream({ model: 'm', max_tokens: 9, messages });
    stream.on('text', say);
    await stream.done();
  }],
  'AI SDK': ['ai_sdk', async (api, say) => {
    const transport = new DefaultChatTransport({ api });
    const asked = [{ id: '1', role: 'user', parts: [{ type: 'text', text: 'x' }] }];
    const stream = await transport.sendMessages({ chatId: '1', trigger: 'submit-message', messages: asked });
    let text = '';
    let failure;
    for await (const message of readUIMessageStream({ stream, onError: error => { failure ??= error; } })) {
      const all = message.parts.filter(part => part.type === 'text').map(part => part.text).join('');
      say(all.slice(text.length));
      text = all;
    }
    if (failure) throw failure;
  }],
  'AG-UI': ['ag_ui', async (url, say) => {
    const agent = new HttpAgent({ url });
    let failure;
    await agent.runAgent({}, {
      onTextMessageContentEvent: ({ event }) => say(event.delta),
      onRunErrorEvent: ({ event }) => { failure = Object.assign(new Error(event.message), { name: 'RUN_ERROR' }); },
    });
    if (failure) throw failure;
  }],
};

async function read(name, scenario) {
  const [protocol, client] = clients[name];
  let seen = '';
  let error;
  try {
    await client(`${base}/${protocol}/${scenario}/`, text => { seen += text; });
  } catch (caught) {
    error = caught;
  }
  const kind = error && (error.constructor.name === 'Error' ? error.name : error.constructor.name);
  console.log(JSON.stringify([name, scenario, seen, kind ?? null, error?.message ?? null]));
}

await Promise.all(Object.keys(clients).flatMap(name => scenarios.split(',').map(scenario => read(name, scenario))));
