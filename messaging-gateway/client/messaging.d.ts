/** What a filter says of one field: a value, or several. */
export type Condition = string | number | boolean | { eq: string | number | boolean } | { in: Array<string | number | boolean> };

/** Conditions by field. An event passes that meets all of them. */
export type Filters = Record<string, Condition>;

/** Where a subscription has got to. Both are opaque. */
export interface Position {
  epoch: string;
  offset: string;
}

interface SubscribeCommon {
  /** All events, if left out. */
  filters?: Filters;
  /** Begins with what came after this position, as `Subscription.position` was before a page was left. */
  resume?: Position;
  /** Begins with so many events of the past, 1,000 at most. */
  last?: number;
  /** Is seen by others, and sees them come and go. */
  presence?: boolean;
}

/** What to subscribe to: an entity of the gateway with its parameters, or a channel by its name. */
export type SubscribeOptions = SubscribeCommon &
  (
    | { entity: string; params?: Record<string, string | number>; channel?: undefined }
    | { channel: string; entity?: undefined; params?: undefined }
  );

/** Somebody who is there. */
export interface Member {
  user?: string;
  info?: unknown;
}

/** Members by what the server calls their connection. */
export type Members = Record<string, Member>;

/** One event, with where it came from. */
export interface Event<T> {
  channel: string;
  /** Where it stands, on channels that are resumable. */
  offset?: string;
  data: T;
  /** It happened before the subscription, or while there was no connection. */
  isPast: boolean;
}

export interface Subscribed {
  channel: string;
  /** There was a subscription before, on a connection that was lost. */
  isAgain: boolean;
  /** Nothing was missed: `count` events follow that came meanwhile. */
  isResumed: boolean;
  /** How many past events follow. */
  count: number;
}

/**
 * Events may be missing before the next one.
 *
 * From the server: `reconnected` (the gateway had lost Redis), `slow`, `removed`, `reset`, `too_large`. From here:
 * `unrecovered` (the server no longer has all that was missed), `disconnected` (the channel is not resumable, and there was
 * no connection for a while), `unheard` (more came than is kept before the first listener).
 */
export interface Gap {
  channel: string;
  reason: "reconnected" | "slow" | "removed" | "reset" | "too_large" | "unrecovered" | "disconnected" | "unheard" | (string & {});
}

export interface Unsubscribed {
  code: number;
  reason: string;
  /** If not, it subscribes again by itself. */
  isFinal: boolean;
}

export interface SubscriptionEvents<T> {
  event: (data: T, event: Event<T>) => void;
  gap: (gap: Gap) => void;
  joinLeave: (change: { joins: Members; leaves: Members }) => void;
  subscribed: (subscribed: Subscribed) => void;
  unsubscribed: (unsubscribed: Unsubscribed) => void;
  /** Not subscribed. If it is temporary, it is tried again; if not, this was the end. */
  error: (error: MessagingError) => void;
}

/** What one has of a channel. It outlives its connections, until `unsubscribe`. */
export interface Subscription<T = unknown> {
  /** The channel, as soon as it is known: an entity says it with the first `subscribed`. */
  readonly channel: string | undefined;
  /** What to `resume` from, if the channel is resumable. Within a listener it counts the event in. */
  readonly position: Position | undefined;
  readonly isSubscribed: boolean;
  /** The first subscription. Rejects if it is refused for good. */
  readonly ready: Promise<Subscribed>;

  /**
   * Adds a listener, and returns what removes it. Events that came before the first listener of `event` are kept for it, up
   * to 1,000. What a listener throws is reported as an uncaught error, and disturbs nothing.
   */
  on<N extends keyof SubscriptionEvents<T>>(name: N, listener: SubscriptionEvents<T>[N]): () => void;
  off<N extends keyof SubscriptionEvents<T>>(name: N, listener: SubscriptionEvents<T>[N]): void;

  /**
   * Replaces the filters between two events, and resolves when they are in force. Without a connection they come into force
   * with the next one. Of several at once the last one counts.
   *
   * Rejects with code 107 if they are not allowed; those of before stay in force.
   */
  update(filters?: Filters): Promise<void>;

  /**
   * Publishes to everybody on the channel, oneself included. Waits for the subscription if there is none at the moment, as
   * long as a request may take. It is never sent twice: where it is not known whether it was sent, the error's `notSent` is false.
   */
  send(data: unknown): Promise<void>;

  /** Who is there. */
  presence(): Promise<Members>;

  /** The past of a resumable channel, oldest first: what came after `since`, or the last `limit` (100; 1,000 at most). */
  history(options?: { since?: Position; limit?: number }): Promise<{
    epoch: string;
    offset: string;
    events: Array<{ offset: string; data: T }>;
  }>;

  /** Ends it. What waits for an answer is rejected. */
  unsubscribe(): void;
}

export type Transport = "websocket" | "sse";

export type State =
  | { state: "connecting"; attempt: number; transport: Transport }
  | { state: "connected"; client: string; user?: string; transport: Transport }
  /** Connects again after `delay` milliseconds, at `until` by `Date.now()`. */
  | { state: "waiting"; delay: number; until: number; attempt: number; code: number; reason: string }
  /** Until `connect()`: by `close()`, or by the server, which does not want it back. */
  | { state: "closed"; code: number; reason: string };

export interface MessagingEvents {
  state: (state: State) => void;
  /** What went wrong and concerns no subscription, such as a token that could not be had. */
  error: (error: MessagingError) => void;
}

export interface Options {
  /** Proves who one is, where no cookie does. */
  token?: string;
  /** Makes a token: for a connection if the last one is about to expire or was refused, and before it expires. */
  getToken?: () => Promise<string | null | undefined> | string | null | undefined;
  /** The address of Server-Sent Events, to fall back to where WebSockets do not get through. Left out: no fallback. */
  sse?: string | URL;
  /** After how many failed attempts it falls back, if none has ever succeeded. Default: 3. */
  sseAfter?: number;
  /** Between which delays, in milliseconds, it connects again. Default: 50 and 20,000. */
  backoff?: { min?: number; max?: number };
  /** How long a request may take, in milliseconds; what others may hold up, three times as long. Default: 10,000. */
  requestTimeout?: number;
  /** How long it may take to connect, in milliseconds. Default: 10,000. */
  handshakeTimeout?: number;
  /** Whether cookies go with Server-Sent Events, as for `fetch`. Default: "same-origin". */
  credentials?: "omit" | "same-origin" | "include";
  /** Another implementation, such as that of `ws` in Node 20. */
  WebSocket?: new (url: string) => object;
  fetch?: typeof fetch;
}

/** A connection to a gateway that opens itself again for as long as it is wanted, and its subscriptions. */
export class Messaging {
  /** Connects at once. The address may be relative to the page, and may begin with http or ws. */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  /** What the server calls this connection, while there is one. */
  readonly client: string | undefined;
  /** Who the server takes one for. */
  readonly user: string | undefined;

  on<N extends keyof MessagingEvents>(name: N, listener: MessagingEvents[N]): () => void;
  off<N extends keyof MessagingEvents>(name: N, listener: MessagingEvents[N]): void;

  subscribe<T = unknown>(options: SubscribeOptions): Subscription<T>;

  /**
   * Connects again after it was closed, with a new token of `getToken`; while it waits, connects at once. Subscriptions go on
   * where they were.
   */
  connect(): void;

  /** Closes the connection, and rejects what waits for an answer. No timer and no listener is left. */
  close(): void;
}

/** Why something was not done. */
export class MessagingError extends Error {
  /**
   * The server's number (docs/gateway.md), or what happened here: `timeout`, `lost` (the connection), `closed`,
   * `unsubscribed`, `busy`, `too_large`, `token`, `address`, `protocol`.
   */
  readonly code: number | string;
  /** The same may succeed later. */
  readonly temporary: boolean;
  /** It was certainly not carried out. */
  readonly notSent: boolean;
}
