// Channels of a messaging gateway in browsers, Node and workers: one module, nothing to build, nothing to install.
//
//     import { Messaging } from "./messaging.js";
//
//     const messaging = new Messaging("/subscribe", { getToken: async () => "…", sse: "/events" });
//     messaging.on("state", (state) => …);
//     const cameras = messaging.subscribe({ entity: "CameraEvents", filters: { camera_id: { in: [1, 2] } }, last: 20 });
//     cameras.on("event", (data, event) => …);
//     cameras.on("gap", (gap) => …);
//
// It stays connected: whatever is lost is opened again, with exponential backoff and full jitter. On channels that are
// resumable every event comes once and in order, however often the connection is lost; where that cannot be kept, `gap`
// says so. Types are in messaging.d.ts, the protocol is in docs/gateway.md.

const DEFAULTS = {
  backoff: { min: 50, max: 20_000 },
  requestTimeout: 10_000,
  handshakeTimeout: 10_000,
  sseAfter: 3,
  credentials: "same-origin",
};

/** A connection that lasted this long counts as a success: the next loss is answered at once. */
const STABLE = 5_000;
/** What one frame of several messages may have, in characters: less than any limit that a server would set. */
const FRAME = 8_192;
/** How many requests may wait for a connection or an answer. */
const WAITING = 1_024;
/** How many events wait for the first listener. */
const UNHEARD = 1_000;
/** The largest event in an event stream, in characters. */
const LARGEST = 16 * 1024 * 1024;
/** `setTimeout` takes no more. */
const LONGEST_TIMER = 2 ** 31 - 1;
/** The codes that this client does something about. */
const CODE = { badRequest: 107, notAvailable: 108, tokenExpired: 109, tooManyRequests: 111, unrecoverable: 112, comeAgain: 2500, expired: 3005, invalidToken: 3500 };

/** Why something was not done. `code` is the server's number, or a word for what happened here. */
export class MessagingError extends Error {
  constructor(message, { code, temporary = false, notSent = true, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "MessagingError";
    this.code = code;
    this.temporary = temporary;
    /** False where it is not known whether the request was carried out. */
    this.notSent = notSent;
  }
}

const connectionLost = (reason) =>
  new MessagingError(`the connection was lost: ${reason}`, { code: "lost", temporary: true, notSent: false });

/** What a listener throws is its own affair: it is reported as other uncaught errors are, and nothing else stops. */
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else console.error(error);
}

class Listeners {
  #byName = new Map();

  on(name, listener) {
    if (typeof listener !== "function") throw new TypeError(`the listener of ${name} is not a function`);
    let listeners = this.#byName.get(name);
    if (!listeners) this.#byName.set(name, (listeners = new Set()));
    listeners.add(listener);
    return () => this.off(name, listener);
  }

  off(name, listener) {
    this.#byName.get(name)?.delete(listener);
  }

  has(name) {
    return Boolean(this.#byName.get(name)?.size);
  }

  emit(name, ...args) {
    for (const listener of [...(this.#byName.get(name) ?? [])]) {
      try {
        listener(...args);
      } catch (error) {
        report(error);
      }
    }
  }
}

/** Full jitter, after "Exponential Backoff And Jitter" (Brooker, AWS Architecture Blog, 2015), but never below `min`. */
function backoff({ min, max }, attempt) {
  const ceiling = Math.min(max, min * 2 ** Math.min(attempt + 1, 30));
  return Math.min(min, max) + Math.random() * Math.max(0, ceiling - min);
}

// ---------------------------------------------------------------------------------------------------- connections

/**
 * One connection, from its opening to its loss, which it tells exactly once. It matches answers with requests, in order
 * and without promises: what follows an answer in the same read must find it carried out.
 */
class Connection {
  welcome = null;
  welcomedAt = 0;
  /** Another connection has taken over: nothing but answers to what was asked before is of interest. */
  isRetired = false;
  /** Something of the gateway was heard, so it is there and can be reached in this way. */
  isReached = false;
  /** Subscriptions that are asked for and not wanted any more; until they are answered, none is asked for. */
  abandoned = 0;

  #owner;
  #pending = new Map();
  #nextId = 1;
  #isOver = false;
  #heardAt = Date.now();
  #watch = null;
  #silence = Infinity;

  constructor(owner, { token, isTokenFresh }) {
    this.#owner = owner;
    this.token = token;
    this.isTokenFresh = isTokenFresh;
  }

  get isOver() {
    return this.#isOver;
  }

  /** The transport has `handshakeTimeout` to become a connection that is welcome. */
  expectWelcome(timeout) {
    this.#watch = setTimeout(() => this.over(0, "no answer in time"), timeout);
  }

  /** Keeps what is to be done with the answer. Without a `timeout` whoever asks keeps the time, and may `forget`. */
  expect(handlers, timeout) {
    const id = this.#nextId++;
    const entry = { ...handlers, timer: null };
    if (timeout !== undefined) {
      // What the server thinks of the subscription is not known any more: a new connection begins from nothing.
      entry.timer = setTimeout(() => this.over(0, "a request was not answered in time"), timeout);
    }
    this.#pending.set(id, entry);
    return id;
  }

  forget(id) {
    const entry = this.#pending.get(id);
    this.#pending.delete(id);
    clearTimeout(entry?.timer);
    if (this.isRetired && this.#pending.size === 0) this.over(1000, "handed over");
    return entry;
  }

  /** Any byte shows that the server lives. */
  heard() {
    this.#heardAt = Date.now();
  }

  receive(message) {
    if (this.#isOver) return;
    this.isReached = true;
    if (message.type === "ok" || message.type === "subscribed" || (message.type === "error" && message.id !== undefined)) {
      const entry = this.forget(message.id);
      if (!entry) return;
      if (message.type !== "error") return void entry.done(message);
      const { code, message: text, temporary = false } = message;
      return void entry.fail(new MessagingError(text ?? `error ${code}`, { code, temporary }));
    }
    switch (message.type) {
      case "welcome":
        clearTimeout(this.#watch);
        this.welcome = message;
        this.welcomedAt = Date.now();
        this.#silence = (message.ping_ms ?? 25_000) + (message.pong_ms ?? 8_000);
        this.#listen(this.#silence);
        return void this.#owner.welcomed(this);
      case "ping":
        return void this.send({ type: "pong" });
      case "disconnect":
        return void this.over(message.code, message.reason ?? "disconnected", message.reconnect);
      default:
        if (!this.isRetired) this.#owner.received(this, message);
    }
  }

  /** Looks whether the server has been silent for too long, as after a sleep. */
  check() {
    if (!this.#isOver && this.welcome && Date.now() - this.#heardAt >= this.#silence) this.over(0, "the server is silent");
  }

  // A timer that fires much too late has slept with the machine, or in a background tab: what has arrived meanwhile
  // gets a moment to be read before silence is believed.
  #listen(delay, isBelated = false) {
    const due = Date.now() + delay;
    this.#watch = setTimeout(() => {
      const now = Date.now();
      if (now < this.#heardAt) this.#heardAt = now;
      const left = this.#heardAt + this.#silence - now;
      if (left > 0) this.#listen(left);
      else if (now - due > 2_000 && !isBelated) this.#listen(1_000, true);
      else this.check();
    }, Math.min(delay, LONGEST_TIMER));
  }

  /** Lets another connection take over: what changes subscriptions is void, questions still get their answers. */
  retire() {
    this.isRetired = true;
    this.#fail(connectionLost("handed over"), (entry) => entry.timer !== null);
    if (this.#pending.size === 0) this.over(1000, "handed over");
  }

  over(code, reason, mayReturn) {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#watch);
    this.shut();
    this.#fail(connectionLost(reason), () => true);
    const isFinal = mayReturn === undefined ? code >= 3500 && code < 4000 : !mayReturn;
    this.#owner.lost(this, { code, reason, isFinal });
  }

  #fail(error, which) {
    for (const [id, entry] of [...this.#pending]) {
      if (!which(entry)) continue;
      clearTimeout(entry.timer);
      this.#pending.delete(id);
      entry.fail(error);
    }
  }
}

class SocketConnection extends Connection {
  transport = "websocket";
  #socket;
  #first;

  /** `first` is asked for what to say with `hello`, in the same frame. */
  constructor(owner, credentials, { WebSocket, url, handshakeTimeout, first }) {
    super(owner, credentials);
    this.#first = first;
    this.expectWelcome(handshakeTimeout);
    const socket = (this.#socket = new WebSocket(url));
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => {
      this.heard();
      let message;
      try {
        message = JSON.parse(data);
      } catch (cause) {
        return owner.failed(new MessagingError("a message of the server is not JSON", { code: "protocol", cause }));
      }
      this.receive(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (code >= 3000) this.isReached = true;
      this.over(code, reason || (code === 1006 ? "the connection broke" : `closed with ${code}`));
    };
    // In browsers `close` follows at once. Some other implementations leave it out when the handshake has failed.
    socket.onerror = () => setTimeout(() => this.over(1006, "could not connect"), 0);
  }

  #opened() {
    const hello = this.token ? { type: "hello", token: this.token } : { type: "hello" };
    this.send(hello, ...this.#first(this));
  }

  send(...messages) {
    if (this.#socket.readyState !== 1) return;
    let frame = "";
    for (const message of messages) {
      const text = JSON.stringify(message);
      if (frame && frame.length + text.length > FRAME) {
        this.#socket.send(frame);
        frame = "";
      }
      frame += frame ? `\n${text}` : text;
    }
    this.#socket.send(frame);
  }

  shut() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Closing a socket that is still connecting is reported as an error, to nobody.
    socket.onerror = () => {};
    try {
      socket.close(1000);
    } catch (error) {
      report(error);
    }
  }
}

/** Server-Sent Events, read with `fetch` because an `EventSource` cannot say who it is. Nothing can be asked on it. */
class StreamConnection extends Connection {
  transport = "sse";
  #aborter = new AbortController();
  /** The ids of its subscriptions, which are answered in the order in which they stand in the address. */
  #order;

  constructor(owner, credentials, { fetch, url, handshakeTimeout, first, mode }) {
    super(owner, credentials);
    this.expectWelcome(handshakeTimeout);
    const subscriptions = first(this);
    this.#order = subscriptions.map(({ id }) => id);
    const address = new URL(url);
    for (const { type, id, ...subscription } of subscriptions) {
      address.searchParams.append("subscribe", JSON.stringify(subscription));
    }
    const headers = { accept: "text/event-stream" };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    const { signal } = this.#aborter;
    this.#read(fetch(address, { headers, signal, cache: "no-store", credentials: mode }), owner).then(
      () => this.over(0, "the stream has ended"),
      ({ code, message, mayReturn }) => this.over(typeof code === "number" ? code : 0, message, mayReturn),
    );
  }

  async #read(response, owner) {
    const { ok, status, body, headers } = await response;
    if (!ok || !body || !headers.get("content-type")?.startsWith("text/event-stream")) {
      await body?.cancel();
      const error = new Error(ok ? "the answer is not an event stream" : `the server answered ${status}`);
      if (status === 401) Object.assign(error, { code: CODE.invalidToken, mayReturn: false });
      else if (status === 400) Object.assign(error, { code: status, mayReturn: false });
      throw error;
    }
    const parse = eventStream((event) => {
      let message;
      try {
        message = JSON.parse(event.data);
      } catch (cause) {
        return owner.failed(new MessagingError("an event of the stream is not JSON", { code: "protocol", cause }));
      }
      this.receive(message.type ? message : { ...message, type: event.name });
    });
    const reader = body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.isOver) return;
      this.heard();
      parse(decoder.decode(value, { stream: true }));
    }
  }

  receive(message) {
    if ((message.type === "subscribed" || message.type === "error") && this.#order.length > 0) {
      message = { ...message, id: this.#order.shift() };
    }
    super.receive(message);
  }

  send() {}

  shut() {
    this.#aborter.abort();
  }
}

/** A parser of `text/event-stream`, after the HTML standard, that is fed with text in whatever pieces it arrives. */
function eventStream(dispatch) {
  let rest = "";
  let searched = 0;
  let name = "";
  let data = [];
  let size = 0;
  return (text) => {
    rest += text;
    let from = 0;
    for (;;) {
      const end = nextLineEnd(rest, Math.max(from, searched));
      // A carriage return at the end may be the first half of a line end.
      if (end < 0 || (rest[end] === "\r" && end === rest.length - 1)) break;
      const line = rest.slice(from, end);
      from = end + (rest[end] === "\r" && rest[end + 1] === "\n" ? 2 : 1);
      if (line === "") {
        const event = { name: name || "message", data: data.join("\n") };
        const isEmpty = data.length === 0;
        name = "";
        data = [];
        size = 0;
        if (!isEmpty) dispatch(event);
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "event") name = value;
      else if (field === "data") {
        data.push(value);
        size += value.length;
      }
    }
    rest = rest.slice(from);
    searched = rest.endsWith("\r") ? rest.length - 1 : rest.length;
    if (rest.length + size > LARGEST) throw new Error("an event of the stream is too large");
  };
}

function nextLineEnd(text, from) {
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 10 || code === 13) return at;
  }
  return -1;
}

// -------------------------------------------------------------------------------------------------- subscriptions

/** What is wanted of one channel, and what is known of it. */
class Channel {
  listeners = new Listeners();
  /** Its name, once the server has said it: who subscribes to an entity does not know it before. */
  name;
  /** idle: to be asked for; paused: not before its timer; asking; subscribed; ended: refused, or not wanted any more. */
  status = "idle";
  position;
  wasSubscribed = false;
  /** Where it was is not known to the server any more. */
  isUnrecoverable = false;
  attempt = 0;
  timer = null;
  questions = new Set();

  /** The filters that are wanted, those that the server has confirmed, and those of the subscription that was asked for last. */
  wanted;
  confirmed = null;
  asked = null;
  /** Each change of the filters has a number: who waits for one is content with a later one. */
  versions = 0;
  isUpdating = false;
  updates = [];

  /** What waits for the first listener of `event`; null once there was one. */
  unheard = [];

  constructor({ entity, params, channel, filters, resume, last, presence }) {
    if (!entity === !channel) throw new TypeError("subscribe takes either an entity or a channel");
    this.target = entity ? { entity, ...(params && { params }) } : { channel };
    this.name = channel;
    this.position = resume && { ...resume };
    this.wanted = { version: 0, filters };
    this.last = last;
    this.presence = presence;
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    // Whoever does not wait for it hears `error`.
    this.ready.catch(() => {});
  }

  get resume() {
    const { epoch, offset } = this.position ?? {};
    return epoch === undefined || offset === undefined ? undefined : { epoch, offset };
  }

  /** The subscription as it is to be asked for now. */
  request(id) {
    const { resume } = this;
    this.asked = { ...this.wanted, isResumed: resume !== undefined };
    const message = { type: "subscribe", id, ...this.target };
    if (this.wanted.filters) message.filters = this.wanted.filters;
    if (resume) message.resume = resume;
    // What is past was told with the first subscription. Asked for again, it would come twice.
    else if (this.last && !this.wasSubscribed) message.last = this.last;
    if (this.presence) message.presence = true;
    return message;
  }

  emit(name, ...args) {
    this.listeners.emit(name, ...args);
  }

  /** Events, and gaps between them, wait for whoever adds its listeners only after an `await`. */
  tell(name, ...args) {
    if (this.unheard === null || (name === "gap" && this.listeners.has("gap"))) return this.emit(name, ...args);
    if (this.unheard.length >= UNHEARD) this.unheard.splice(0, 2, ["gap", [{ channel: this.name, reason: "unheard" }]]);
    this.unheard.push([name, args]);
  }

  hear() {
    const { unheard } = this;
    if (unheard === null) return;
    this.unheard = null;
    for (const [name, args] of unheard) this.emit(name, ...args);
  }

  deliver({ offset, data }, isPast) {
    if (offset !== undefined) this.position = { epoch: this.position?.epoch, offset };
    this.tell("event", data, { channel: this.name, offset, data, isPast });
  }

  /** Tells those who wait for a change of the filters, up to this one. */
  settle(version, error) {
    const updates = this.updates;
    this.updates = updates.filter((update) => update.version > version);
    for (const update of updates) {
      if (update.version > version) continue;
      if (error) update.reject(error);
      else update.resolve();
    }
  }

  /** Tells everybody who waits for something that it will not come. */
  refuse(error) {
    this.settle(Infinity, error);
    for (const question of [...this.questions]) question.refuse(error);
  }

  end(error) {
    this.status = "ended";
    clearTimeout(this.timer);
    this.reject(error);
    this.refuse(error);
  }
}

/** A subscription as its user has it. */
class Subscription {
  #channel;
  #actions;

  constructor(channel, actions) {
    this.#channel = channel;
    this.#actions = actions;
  }

  get channel() {
    return this.#channel.name;
  }

  get position() {
    const { resume } = this.#channel;
    return resume && { ...resume };
  }

  get isSubscribed() {
    return this.#channel.status === "subscribed";
  }

  get ready() {
    return this.#channel.ready;
  }

  on(name, listener) {
    const off = this.#channel.listeners.on(name, listener);
    // Those that are added with it hear the gaps.
    if (name === "event") queueMicrotask(() => this.#channel.hear());
    return off;
  }

  off(name, listener) {
    this.#channel.listeners.off(name, listener);
  }

  update(filters) {
    return this.#actions.update(filters);
  }

  async send(data) {
    await this.#actions.ask({ type: "send", data }, false);
  }

  async presence() {
    return (await this.#actions.ask({ type: "presence" }, true)).members ?? {};
  }

  async history({ since, limit } = {}) {
    const { epoch, offset, events = [] } = await this.#actions.ask({ type: "history", since, limit }, true);
    return { epoch, offset, events };
  }

  unsubscribe() {
    this.#actions.unsubscribe();
  }
}

// ------------------------------------------------------------------------------------------------------- messaging

/** A connection to a gateway that opens itself again, and its subscriptions. */
export class Messaging {
  #listeners = new Listeners();
  #options;
  #socketUrl;
  #streamUrl;
  #state = { state: "connecting", attempt: 0, transport: "websocket" };

  #channels = new Set();
  #byName = new Map();
  #questions = 0;

  #isWanted = true;
  /** The connection that subscriptions are on, or the attempt at one. */
  #current = null;
  /** The one that takes over as soon as it is welcome. Until then the current one goes on. */
  #next = null;
  #handover = { reason: null, attempt: 0, timer: null };
  #retired = new Set();
  /** Each opening has a number: when its token arrives, another may have become the one that counts. */
  #opening = 0;
  #attempt = 0;
  #timer = null;
  #reopening = null;

  #hasSocketWorked = false;
  #failedSockets = 0;
  #lastTried = null;

  #token = null;
  #refreshing = null;
  #unwatch = null;

  constructor(url, options = {}) {
    const { backoff: pace, ...rest } = options;
    this.#options = { ...DEFAULTS, ...rest, backoff: { ...DEFAULTS.backoff, ...pace } };
    this.#options.WebSocket ??= globalThis.WebSocket;
    this.#options.fetch ??= globalThis.fetch?.bind(globalThis);
    if (!this.#options.WebSocket && !this.#options.sse) {
      throw new TypeError("there is no WebSocket here: pass one as an option, or an address for Server-Sent Events");
    }
    this.#socketUrl = absolute(url, "ws");
    this.#streamUrl = this.#options.sse && absolute(this.#options.sse, "http");
    // Listeners and subscriptions that are added right after it are there from the beginning.
    queueMicrotask(() => this.#isWanted && this.#opening === 0 && this.#open());
  }

  get state() {
    return this.#state;
  }

  get client() {
    return this.#current?.welcome?.client;
  }

  get user() {
    return this.#current?.welcome?.user;
  }

  on(name, listener) {
    return this.#listeners.on(name, listener);
  }

  off(name, listener) {
    this.#listeners.off(name, listener);
  }

  subscribe(options) {
    const channel = new Channel(options);
    this.#channels.add(channel);
    if (this.#current) this.#askForAll();
    else if (this.#state.state === "connecting" && this.#state.transport === "sse") this.#reopenStream();
    return new Subscription(channel, {
      update: (filters) => this.#update(channel, filters),
      ask: (message, isRepeatable) => this.#ask(channel, message, isRepeatable),
      unsubscribe: () => this.#unsubscribe(channel),
    });
  }

  connect() {
    if (this.#isWanted && this.#state.state !== "waiting") return;
    this.#isWanted = true;
    this.#open();
  }

  close() {
    this.#stop({ code: 1000, reason: "closed here" });
  }

  #setState(state) {
    this.#state = state;
    this.#listeners.emit("state", state);
  }

  #failed(error) {
    this.#listeners.emit("error", error);
  }

  // ---- opening

  async #open({ isHandover = false } = {}) {
    const opening = ++this.#opening;
    clearTimeout(this.#timer);
    this.#watchForWakeUps();
    const transport = isHandover ? "websocket" : this.#chooseTransport();
    if (!isHandover) {
      this.#setState({ state: "connecting", attempt: this.#attempt, transport });
      // A stream of nothing cannot be opened: the first subscription opens it.
      if (transport === "sse" && this.#channels.size === 0) return;
    }
    let credentials;
    try {
      credentials = await this.#credentials();
    } catch (cause) {
      if (opening !== this.#opening) return;
      this.#failed(new MessagingError("there is no token", { code: "token", temporary: true, cause }));
      if (isHandover) this.#handOverLater();
      else this.#wait({ code: 0, reason: "there is no token" });
      return;
    }
    // A listener of a state may have closed or connected meanwhile.
    if (opening !== this.#opening) return;
    const owner = {
      welcomed: (connection) => this.#welcomed(connection),
      received: (connection, message) => this.#received(connection, message),
      lost: (connection, why) => this.#lost(connection, why),
      failed: (error) => this.#failed(error),
    };
    const { WebSocket, fetch, handshakeTimeout, credentials: mode } = this.#options;
    // What is to take over asks for nothing before it is welcome: until then the subscriptions are the current one's.
    const first = (connection) => (connection === this.#next ? [] : this.#requests(connection));
    try {
      const connection =
        transport === "sse"
          ? new StreamConnection(owner, credentials, { fetch, url: this.#streamUrl, handshakeTimeout, first, mode })
          : new SocketConnection(owner, credentials, { WebSocket, url: this.#socketUrl, handshakeTimeout, first });
      if (isHandover) this.#next = connection;
      else this.#current = connection;
    } catch (cause) {
      // An address that is none, or that this page must not use. No later attempt would fare better.
      this.#failed(new MessagingError("this address cannot be connected to", { code: "address", cause }));
      if (!isHandover) this.#stop({ code: 0, reason: "this address cannot be connected to" });
    }
  }

  #chooseTransport() {
    const last = this.#lastTried;
    let transport = "websocket";
    if (this.#streamUrl && !this.#hasSocketWorked) {
      const isHopeless = !this.#options.WebSocket;
      // Turn and turn about, until one of them works.
      const isTurn = this.#failedSockets >= this.#options.sseAfter && (last?.transport !== "sse" || last.wasWelcome);
      if (isHopeless || isTurn) transport = "sse";
    }
    this.#lastTried = { transport, wasWelcome: false };
    return transport;
  }

  async #credentials() {
    const { token, getToken } = this.#options;
    if (!getToken) return { token, isTokenFresh: true };
    if (this.#token && Date.now() < this.#token.until) return { token: this.#token.text, isTokenFresh: false };
    return { token: await this.#newToken(), isTokenFresh: true };
  }

  async #newToken() {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("getToken took too long")), this.#options.requestTimeout);
    });
    try {
      const text = await Promise.race([this.#options.getToken(), late]);
      this.#token = text ? { text, until: Infinity } : null;
      return text;
    } finally {
      clearTimeout(timer);
    }
  }

  // ---- the life of a connection

  #welcomed(connection) {
    if (connection === this.#next) {
      const old = this.#current;
      this.#next = null;
      this.#current = connection;
      this.#opening++;
      this.#forgetSubscriptions();
      if (old) {
        this.#retired.add(old);
        old.retire();
      }
    }
    const { client, user, expires_in_ms: expires } = connection.welcome;
    const isStream = connection.transport === "sse";
    if (isStream) {
      this.#lastTried.wasWelcome = true;
      if (this.#options.WebSocket) this.#upgradeLater();
    } else {
      this.#hasSocketWorked = true;
      this.#endHandover();
    }
    this.#expires(connection, expires);
    this.#setState({ state: "connected", client, user, transport: connection.transport });
    if (connection === this.#current) this.#askForAll();
  }

  #received(connection, message) {
    if (connection !== this.#current) return;
    const channel = this.#byName.get(message.channel);
    switch (message.type) {
      case "event":
        return void channel?.deliver(message, false);
      case "gap": {
        if (!channel) return;
        const { epoch, offset, reason } = message;
        if (epoch !== undefined && offset !== undefined) channel.position = { epoch, offset };
        return void channel.tell("gap", { channel: channel.name, reason });
      }
      // What the filters have kept back need not be looked at again.
      case "position":
        if (channel?.resume) channel.position = { epoch: channel.position.epoch, offset: message.offset };
        return;
      case "join_leave":
        return void channel?.emit("joinLeave", { joins: message.joins ?? {}, leaves: message.leaves ?? {} });
      case "unsubscribed": {
        if (!channel) return;
        const { code, reason } = message;
        this.#byName.delete(channel.name);
        const isFinal = code < CODE.comeAgain;
        if (isFinal) {
          this.#channels.delete(channel);
          channel.end(new MessagingError(`unsubscribed by the server: ${reason}`, { code }));
        } else {
          this.#askLater(channel);
        }
        return void channel.emit("unsubscribed", { code, reason, isFinal });
      }
      case "goaway":
        return void this.#renew("goaway", Math.random() * 0.8 * (message.after_ms ?? 0));
      case "error":
        return void this.#failed(new MessagingError(message.message, message));
    }
  }

  #lost(connection, why) {
    if (this.#retired.delete(connection)) return;
    if (connection !== this.#current && connection !== this.#next) return;
    if (connection.transport === "websocket" && !connection.isReached) this.#failedSockets++;
    if (why.code === CODE.expired || why.code === CODE.invalidToken) this.#token = null;
    if (connection === this.#next) {
      this.#next = null;
      return this.#handOverLater();
    }
    this.#current = null;
    clearTimeout(this.#refreshing);
    this.#forgetSubscriptions();
    if (connection.welcome && Date.now() - connection.welcomedAt >= STABLE) this.#attempt = 0;
    if (this.#next) {
      // It was to take over in any case.
      this.#current = this.#next;
      this.#next = null;
      return this.#setState({ state: "connecting", attempt: this.#attempt, transport: "websocket" });
    }
    this.#pauseHandover();
    // A token that was used before may have expired unnoticed. One that is refused when it is new is hopeless.
    const mayTryAgain = why.code === CODE.invalidToken && this.#options.getToken && !connection.isTokenFresh;
    if (why.isFinal && !mayTryAgain) this.#stop(why);
    else this.#wait(why);
  }

  #wait({ code, reason }) {
    const delay = backoff(this.#options.backoff, this.#attempt++);
    this.#opening++;
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#setState({ state: "waiting", delay, until: Date.now() + delay, attempt: this.#attempt, code, reason });
  }

  #stop({ code, reason }) {
    const wasClosed = !this.#isWanted;
    this.#isWanted = false;
    this.#opening++;
    this.#attempt = 0;
    // Who connects again may be somebody else.
    this.#token = null;
    for (const timer of [this.#timer, this.#refreshing, this.#reopening]) clearTimeout(timer);
    this.#reopening = null;
    this.#endHandover();
    this.#unwatch?.();
    this.#unwatch = null;
    const connections = [this.#current, this.#next, ...this.#retired];
    this.#current = this.#next = null;
    this.#retired.clear();
    for (const connection of connections) connection?.over(1000, reason);
    this.#forgetSubscriptions();
    for (const channel of this.#channels) channel.refuse(new MessagingError(`closed: ${reason}`, { code: "closed" }));
    if (!wasClosed) this.#setState({ state: "closed", code, reason });
  }

  // ---- changing to another connection while this one goes on

  /** Nothing is lost by it: what takes over resumes where the old one was left, at the moment when it is left. */
  #handOver(reason, delay) {
    if (this.#next) return;
    clearTimeout(this.#handover.timer);
    this.#handover.reason = reason;
    this.#handover.timer = setTimeout(() => this.#current?.welcome && this.#open({ isHandover: true }), delay);
  }

  #handOverLater() {
    const { reason } = this.#handover;
    if (!reason || !this.#current?.welcome) return;
    const attempt = this.#handover.attempt++;
    if (reason === "upgrade") this.#upgradeLater();
    else this.#handOver(reason, backoff(this.#options.backoff, attempt));
  }

  /** What blocks WebSockets now may have been a server that was just starting: it is tried again, more and more seldom. */
  #upgradeLater() {
    this.#handOver("upgrade", Math.min(600_000, 2_000 * 4 ** Math.min(this.#handover.attempt, 10)));
  }

  #pauseHandover() {
    clearTimeout(this.#handover.timer);
    this.#handover.reason = null;
  }

  #endHandover() {
    this.#pauseHandover();
    this.#handover.attempt = 0;
  }

  #renew(reason, delay) {
    if (this.#current?.transport === "sse") this.#reopenStream(delay);
    else this.#handOver(reason, delay);
  }

  /** A stream is what its address says: other subscriptions, other filters and another token take another one. */
  #reopenStream(delay = 10) {
    this.#reopening ??= setTimeout(() => {
      this.#reopening = null;
      const old = this.#current;
      if (old ? old.transport !== "sse" : this.#state.state !== "connecting") return;
      this.#current = null;
      old?.over(1000, "opened anew");
      this.#forgetSubscriptions();
      this.#open();
    }, delay);
  }

  #watchForWakeUps() {
    if (this.#unwatch || typeof globalThis.addEventListener !== "function") return;
    const wake = (isOtherNetwork) => {
      if (this.#state.state === "waiting") return void this.#open();
      this.#current?.check();
      if (isOtherNetwork && this.#current?.welcome) this.#renew("online", 0);
    };
    const online = () => wake(true);
    const shown = () => globalThis.document?.visibilityState !== "hidden" && wake(false);
    globalThis.addEventListener("online", online);
    globalThis.addEventListener("pageshow", shown);
    globalThis.document?.addEventListener("visibilitychange", shown);
    this.#unwatch = () => {
      globalThis.removeEventListener("online", online);
      globalThis.removeEventListener("pageshow", shown);
      globalThis.document?.removeEventListener("visibilitychange", shown);
    };
  }

  // ---- tokens

  #expires(connection, expires) {
    clearTimeout(this.#refreshing);
    if (expires === undefined) return;
    const margin = Math.min(60_000, expires / 4);
    if (this.#token) this.#token.until = Date.now() + expires - margin / 2;
    if (this.#options.getToken) this.#refreshIn(connection, expires - margin * (0.5 + Math.random() / 2), 0);
  }

  #refreshIn(connection, delay, attempt) {
    clearTimeout(this.#refreshing);
    this.#refreshing = setTimeout(() => {
      if (delay > LONGEST_TIMER) this.#refreshIn(connection, delay - LONGEST_TIMER, attempt);
      else this.#refresh(connection, attempt);
    }, Math.min(delay, LONGEST_TIMER));
  }

  async #refresh(connection, attempt) {
    const isPast = () => connection !== this.#current || connection.isOver;
    // If nothing helps, the server ends the connection, and the next one begins with a new token.
    const failed = (error) => {
      if (isPast()) return;
      this.#failed(error);
      if (error.temporary) this.#refreshIn(connection, Math.max(500, backoff(this.#options.backoff, attempt)), attempt + 1);
    };
    let token;
    try {
      token = await this.#newToken();
    } catch (cause) {
      return failed(new MessagingError("there is no token", { code: "token", temporary: true, cause }));
    }
    if (isPast() || !token) return;
    if (connection.transport === "sse") return this.#reopenStream();
    const done = ({ expires_in_ms: expires }) => isPast() || this.#expires(connection, expires);
    const id = connection.expect({ done, fail: failed }, this.#longTimeout);
    connection.send({ type: "refresh", id, token });
  }

  // ---- subscriptions

  /** For requests that answers of others may hold up: each decision may take as long as one request. */
  get #longTimeout() {
    return 3 * this.#options.requestTimeout;
  }

  /** The connection that they were on is no more: all of them are to be asked for. */
  #forgetSubscriptions() {
    this.#byName.clear();
    for (const channel of this.#channels) {
      channel.status = "idle";
      channel.isUpdating = false;
      clearTimeout(channel.timer);
    }
  }

  #askForAll() {
    const connection = this.#current;
    if (!connection?.welcome) return;
    if (connection.transport === "sse") {
      if ([...this.#channels].some(({ status }) => status === "idle")) this.#reopenStream();
      return;
    }
    const requests = this.#requests(connection);
    if (requests.length > 0) connection.send(...requests);
  }

  /** The requests for all that is idle. */
  #requests(connection) {
    // The server would say of a channel that is on its way out that it is subscribed already.
    if (connection.abandoned > 0) return [];
    const idle = [...this.#channels].filter(({ status }) => status === "idle");
    return idle.map((channel) => {
      channel.status = "asking";
      const answered = (then) => (answer) => {
        if (channel.status === "ended") this.#abandoned(connection, answer);
        else then.call(this, channel, answer);
      };
      const handlers = { done: answered(this.#subscribed), fail: answered(this.#refused) };
      return channel.request(connection.expect(handlers, this.#longTimeout));
    });
  }

  #askLater(channel, delay = backoff(this.#options.backoff, channel.attempt++)) {
    channel.status = "paused";
    clearTimeout(channel.timer);
    channel.timer = setTimeout(() => {
      channel.status = "idle";
      this.#askForAll();
    }, delay);
  }

  #subscribed(channel, { channel: name, epoch, offset, recovered, events = [] }) {
    const connection = this.#current;
    const { asked, wasSubscribed, isUnrecoverable } = channel;
    const isResumed = asked.isResumed && recovered === true;
    const mayMiss = !isResumed && (asked.isResumed || wasSubscribed || isUnrecoverable);
    Object.assign(channel, { name, status: "subscribed", attempt: 0, wasSubscribed: true, isUnrecoverable: false });
    this.#byName.set(name, channel);
    channel.confirmed = { version: asked.version, filters: asked.filters };
    channel.settle(asked.version);
    const told = { channel: name, isAgain: wasSubscribed, isResumed, count: events.length };
    channel.resolve(told);
    channel.emit("subscribed", told);
    if (mayMiss) {
      const reason = asked.isResumed || isUnrecoverable ? "unrecovered" : "disconnected";
      channel.tell("gap", { channel: name, reason });
    }
    // A listener may end all this: then the position is that of the event which it was told last.
    const isOn = () => this.#current === connection && channel.status === "subscribed";
    if (epoch !== undefined) channel.position = { epoch, offset: isResumed ? channel.position?.offset : undefined };
    for (const event of events) {
      if (!isOn()) return;
      channel.deliver(event, true);
    }
    if (!isOn()) return;
    channel.position = epoch === undefined ? undefined : { epoch, offset };
    this.#sendUpdate(channel);
    for (const question of [...channel.questions]) question.ask();
  }

  #refused(channel, error) {
    if (error.code === "lost") return;
    const { asked, wanted, confirmed } = channel;
    if (error.code === CODE.unrecoverable && asked.isResumed) {
      Object.assign(channel, { position: undefined, isUnrecoverable: true });
      return this.#askLater(channel, 0);
    }
    if (error.code === CODE.badRequest && (wanted.version > asked.version || confirmed?.version < asked.version)) {
      // The change of the filters was wrong, not the subscription.
      if (wanted.version === asked.version) channel.wanted = confirmed;
      channel.settle(asked.version, error);
      return this.#askLater(channel, 0);
    }
    if (error.code === CODE.tokenExpired && this.#options.getToken) {
      this.#token = null;
      return this.#current?.over(CODE.expired, error.message, true);
    }
    if (error.temporary) {
      this.#askLater(channel);
    } else {
      this.#channels.delete(channel);
      channel.end(error);
    }
    channel.emit("error", error);
  }

  /** What is subscribed to only now, when nobody wants it any more, is unsubscribed from. */
  #abandoned(connection, answer) {
    connection.abandoned--;
    if (answer.type === "subscribed" && connection.transport === "websocket") this.#sayUnsubscribe(connection, answer.channel);
    if (connection === this.#current) this.#askForAll();
  }

  #sayUnsubscribe(connection, channel) {
    const id = connection.expect({ done() {}, fail() {} }, this.#longTimeout);
    connection.send({ type: "unsubscribe", id, channel });
  }

  #unsubscribe(channel) {
    const { status } = channel;
    if (status === "ended") return;
    channel.end(new MessagingError("not subscribed any more", { code: "unsubscribed" }));
    this.#channels.delete(channel);
    const connection = this.#current;
    if (status === "subscribed") this.#byName.delete(channel.name);
    if (!connection || (status !== "subscribed" && status !== "asking")) return;
    if (status === "asking") connection.abandoned++;
    else if (connection.transport === "websocket") this.#sayUnsubscribe(connection, channel.name);
    if (connection.transport === "sse") this.#reopenStream();
  }

  #update(channel, filters) {
    return new Promise((resolve, reject) => {
      if (channel.status === "ended") return reject(new MessagingError("not subscribed any more", { code: "unsubscribed" }));
      if (!this.#isWanted) return reject(new MessagingError("closed", { code: "closed" }));
      if (channel.updates.length >= WAITING) return reject(new MessagingError("too many updates wait", { code: "busy", temporary: true }));
      const version = ++channel.versions;
      channel.wanted = { version, filters };
      channel.updates.push({ version, resolve, reject });
      this.#sendUpdate(channel);
    });
  }

  /** One at a time, and always the latest. What comes before the subscription is part of it. */
  #sendUpdate(channel) {
    const connection = this.#current;
    const { wanted, confirmed } = channel;
    if (channel.status !== "subscribed" || channel.isUpdating || wanted.version === confirmed.version) return;
    if (connection.transport === "sse") return this.#reopenStream();
    channel.isUpdating = true;
    const done = () => {
      channel.isUpdating = false;
      channel.confirmed = wanted;
      channel.attempt = 0;
      channel.settle(wanted.version);
      this.#sendUpdate(channel);
    };
    const fail = (error) => {
      // The next subscription brings it.
      if (error.code === "lost" || channel.status === "ended") return;
      if (error.temporary) {
        clearTimeout(channel.timer);
        channel.timer = setTimeout(() => {
          channel.isUpdating = false;
          this.#sendUpdate(channel);
        }, backoff(this.#options.backoff, channel.attempt++));
        return;
      }
      channel.isUpdating = false;
      if (channel.wanted === wanted) channel.wanted = channel.confirmed;
      channel.settle(wanted.version, error);
      this.#sendUpdate(channel);
    };
    const id = connection.expect({ done, fail }, this.#longTimeout);
    connection.send({ type: "update", id, channel: channel.name, filters: wanted.filters ?? {} });
  }

  /** Asks as soon as the channel is subscribed to; again after a loss, if that does no harm. */
  #ask(channel, message, isRepeatable) {
    return new Promise((resolve, reject) => {
      if (channel.status === "ended") return reject(new MessagingError("not subscribed any more", { code: "unsubscribed" }));
      if (!this.#isWanted) return reject(new MessagingError("closed", { code: "closed" }));
      if (this.#questions >= WAITING) return reject(new MessagingError("too many requests wait", { code: "busy", temporary: true }));
      this.#questions++;
      let asked = null;
      let retry = null;
      let attempt = 0;
      const finish = (settle, value) => {
        clearTimeout(timer);
        clearTimeout(retry);
        if (channel.questions.delete(question)) this.#questions--;
        asked?.connection.forget(asked.id);
        asked = null;
        settle(value);
      };
      const refuse = (error) => {
        if (asked && !isRepeatable) error = new MessagingError(error.message, { ...error, notSent: false });
        finish(reject, error);
      };
      const timer = setTimeout(() => {
        const text = asked ? "no answer in time" : "not subscribed in time";
        refuse(new MessagingError(text, { code: "timeout", temporary: true }));
      }, this.#options.requestTimeout);
      const fail = (error) => {
        asked = null;
        // The next subscription asks again. There may be one already, if another connection has taken over.
        if (error.code === "lost" && isRepeatable) return queueMicrotask(ask);
        if (error.code === CODE.tooManyRequests || (error.temporary && isRepeatable)) {
          retry = setTimeout(ask, Math.max(100, backoff(this.#options.backoff, attempt++)));
          return;
        }
        // What went wrong in the server may have done so after it had sent.
        const isUnknown = error.code === "lost" || error.temporary;
        finish(reject, isUnknown ? new MessagingError(error.message, { ...error, notSent: isRepeatable }) : error);
      };
      const ask = () => {
        clearTimeout(retry);
        const connection = this.#current;
        if (asked || channel.status !== "subscribed" || !channel.questions.has(question)) return;
        if (connection.transport === "sse") {
          const text = `${message.type} is not possible over Server-Sent Events, and WebSockets do not get through`;
          return finish(reject, new MessagingError(text, { code: CODE.notAvailable }));
        }
        const limit = connection.welcome.limits?.message ?? Infinity;
        const size = new TextEncoder().encode(JSON.stringify(message)).length + channel.name.length + 64;
        if (size > limit) {
          const text = `a message of ${size} bytes is too large: the server takes ${limit}`;
          return finish(reject, new MessagingError(text, { code: "too_large" }));
        }
        const id = connection.expect({ done: (answer) => ((asked = null), finish(resolve, answer)), fail });
        asked = { connection, id };
        connection.send({ ...message, id, channel: channel.name });
      };
      const question = { ask, refuse };
      channel.questions.add(question);
      ask();
    });
  }
}

function absolute(url, scheme) {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol === "https:" || address.protocol === "wss:" ? `${scheme}s:` : `${scheme}:`;
  address.hash = "";
  return address.href;
}
