/**
 * - `connecting`: the first attempt, or the next one after a stream that has ended.
 * - `streaming`: the stream is open.
 * - `polling`: streams do not pass, so the page polls, and tries to stream again from time to time.
 * - `away`: an attempt failed; the next one follows in `wait` seconds.
 * - `closed`: it is over. The page called `close()`, the server refused, or the stream is finished.
 */
export type State = "connecting" | "streaming" | "polling" | "away" | "closed";

export interface Detail {
  /** The status of the last answer; 0 if there was none. */
  status: number;
  /** Seconds until the next attempt, if the state is `away` or `connecting`. */
  wait?: number;
  /** The error of the last attempt, if it failed. */
  error?: unknown;
}

export interface Options {
  /**
   * Headers of each request, or a function that returns them, which is called at each attempt. After a 401 it is called
   * once more, with the status 401, to get a new token; a second 401 is final.
   */
  headers?: HeadersInit | ((last: {status: number}) => HeadersInit | Promise<HeadersInit>);
  /** The default is GET. Any other method is sent again only if it was refused for now, or if an event had an id. */
  method?: string;
  /** The body of a POST. */
  body?: Exclude<BodyInit, ReadableStream>;
  /** `include` sends cookies to another origin. */
  credentials?: RequestCredentials;
  /**
   * One connection for all tabs of this origin that read the same URL with the same `share`. It needs an EventSourceApp
   * and HTTPS; without HTTPS each tab has its own connection. With `headers`, give the name of the user.
   */
  share?: boolean | string;
  /** A function for each type of event. `message` is the type of events without one. */
  on?: {[type: string]: (event: MessageEvent<string>) => void};
  /** Called when the state changes, and for each attempt that failed. */
  state?: (state: State, detail: Detail) => void;
}

export interface Connection {
  /** Ends the connection for good. */
  close(): void;
}

/**
 * Reads a stream of Server-Sent Events until it is finished, refused or closed, and reconnects in all other cases.
 *
 * @param url - The address of the stream, relative to the page.
 * @throws TypeError if an option is unknown or wrong.
 */
export function connect(url: string | URL, options?: Options): Connection;
