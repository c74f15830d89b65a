// Uses each option of the client as a page would; tests/browser/test_types.py has tsc check it.
import {connect, type Connection, type Detail, type State} from "../../src/sse_asgi/client/sse-asgi.js";

const connection: Connection = connect("/events/", {
  headers: async ({status}) => ({Authorization: status === 401 ? "new" : "old"}),
  method: "POST",
  body: new URLSearchParams({a: "b"}),
  credentials: "include",
  share: "ada",
  on: {
    message: event => console.log(event.data.length, event.lastEventId.length),
    "sse.gap"({data}) { JSON.parse(data); },
  },
  state: (state: State, {status, wait, error}: Detail) => console.log(state, status + (wait ?? 0), error),
});
connection.close();
connect(new URL("https://a.example/events/"), {headers: {"X-Api-Key": "1"}, share: "me"});
connect("/events/");

// @ts-expect-error: the name of an option
connect("/events/", {header: {}});
// @ts-expect-error: an event has text
connect("/events/", {on: {message: (event: number) => event}});
// @ts-expect-error: a stream cannot be sent again
connect("/events/", {method: "POST", body: new ReadableStream()});
// @ts-expect-error: the name of a state
connect("/events/", {state: state => state === "open"});
// @ts-expect-error: an address is needed
connect();
