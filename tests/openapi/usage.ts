// Compiles only if both generators know the data of the events: a wrong field has to be an error.
import type { components, paths } from "./api";
import { answer, readChannelsEvents } from "./client";

type Data = paths["/answer"]["post"]["responses"][200]["content"]["text/event-stream"];
const token: components["schemas"]["Token"] = { text: "hello" };
const data: Data[] = [token, { tokens: 1 }];
// @ts-expect-error - no model has this field
data.push({ words: 1 });

export async function read(): Promise<string> {
  const { stream } = await answer({ query: { question: "why" } });
  for await (const item of stream) {
    if ("text" in item) return item.text;
    // @ts-expect-error - what is left is Done
    if (item.text) return "";
  }
  const channels = await readChannelsEvents({ query: { channel: ["news"] }, headers: { "Last-Event-ID": "1" } });
  for await (const said of channels.stream) return said.text;
  return "";
}
