// A gateway that does what a test tells it: RFC 6455 and Server-Sent Events on node's http, and nothing to install.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const open = new Set();

/** Something that tests take from one by one, waiting for it if need be. */
export class Queue {
  #items = [];
  #takers = [];

  push(item) {
    const taker = this.#takers.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }

  get size() {
    return this.#items.length;
  }

  take(what = "something") {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return within(new Promise((resolve) => this.#takers.push(resolve)), what);
  }
}

export function within(promise, what, limit = 5_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Resolves when `condition` holds. */
export async function until(condition, what) {
  const end = Date.now() + 5_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export class Gateway {
  /** Connections as they come. */
  connections = new Queue();
  streams = new Queue();
  refusesUpgrades = false;
  upgrades = 0;
  streamStatus = 200;
  #server = createServer((request, response) => this.#stream(request, response));
  #sockets = new Set();

  static async start(port = 0) {
    const gateway = new Gateway();
    gateway.#server.on("upgrade", (request, socket) => gateway.#upgrade(request, socket));
    gateway.#server.on("connection", (socket) => {
      gateway.#sockets.add(socket);
      socket.on("close", () => gateway.#sockets.delete(socket));
      socket.on("error", () => {});
    });
    await new Promise((resolve) => gateway.#server.listen(port, "127.0.0.1", resolve));
    open.add(gateway);
    return gateway;
  }

  static async stopAll() {
    await Promise.all([...open].map((gateway) => gateway.stop()));
  }

  get port() {
    return this.#server.address().port;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/subscribe`;
  }

  get sse() {
    return `http://127.0.0.1:${this.port}/events`;
  }

  get openSockets() {
    return this.#sockets.size;
  }

  stop() {
    open.delete(this);
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  #upgrade(request, socket) {
    this.upgrades++;
    if (this.refusesUpgrades) return void socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    const accept = createHash("sha1")
      .update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest("base64");
    socket.setNoDelay(true);
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${accept}\r\n\r\n`,
    );
    this.connections.push(new Socket(socket));
  }

  #stream(request, response) {
    if (this.streamStatus !== 200) return void response.writeHead(this.streamStatus).end();
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    this.streams.push(new Stream(request, response));
  }
}

/** One connection of a client. */
class Socket {
  messages = new Queue();
  closed;
  /** Messages by frame, as they came. */
  frames = [];
  #socket;
  #rest = Buffer.alloc(0);

  constructor(socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("data", (data) => this.#read(data));
  }

  #read(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (;;) {
      const bytes = this.#rest;
      if (bytes.length < 2) return;
      let size = bytes[1] & 0x7f;
      let at = 2;
      if (size === 126) [size, at] = [bytes.length >= 4 ? bytes.readUInt16BE(2) : Infinity, 4];
      else if (size === 127) [size, at] = [bytes.length >= 10 ? Number(bytes.readBigUInt64BE(2)) : Infinity, 10];
      if (bytes.length < at + 4 + size) return;
      const mask = bytes.subarray(at, at + 4);
      const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + size).map((byte, index) => byte ^ mask[index % 4]));
      this.#rest = bytes.subarray(at + 4 + size);
      const opcode = bytes[0] & 0x0f;
      if (opcode === 8) {
        this.#frame(8, payload);
        this.#socket.end();
      } else if (opcode === 1) {
        const messages = payload.toString().split("\n").map((line) => JSON.parse(line));
        this.frames.push(messages);
        for (const message of messages) this.messages.push(message);
      }
    }
  }

  #frame(opcode, payload) {
    const head =
      payload.length < 126
        ? Buffer.from([0x80 | opcode, payload.length])
        : Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 0xff]);
    if (!this.#socket.destroyed) this.#socket.write(Buffer.concat([head, payload]));
  }

  /** Several go out in one write. */
  send(...messages) {
    this.#socket.cork();
    for (const message of messages) {
      this.#frame(1, Buffer.from(typeof message === "string" ? message : JSON.stringify(message)));
    }
    this.#socket.uncork();
  }

  close(code, reason = "") {
    this.#frame(8, Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]));
    this.#socket.end();
  }

  cut() {
    this.#socket.destroy();
  }

  /** The next message, which must be of this type. */
  async take(type) {
    const message = await this.messages.take(`a message ${type}`);
    if (message.type !== type) throw new Error(`expected ${type}, got ${JSON.stringify(message)}`);
    return message;
  }

  async welcome(more = {}) {
    const hello = await this.take("hello");
    this.send({ type: "welcome", client: "c", ping_ms: 25_000, pong_ms: 8_000, limits: { message: 65_536, subscriptions: 128 }, ...more });
    return hello;
  }

  /** Answers the next subscribe. */
  async subscribed(more = {}) {
    const subscribe = await this.take("subscribe");
    this.send({ type: "subscribed", id: subscribe.id, channel: subscribe.channel ?? subscribe.entity, ...more });
    return subscribe;
  }
}

class Stream {
  closed;
  #response;

  constructor(request, response) {
    this.#response = response;
    this.headers = request.headers;
    this.address = new URL(request.url, "http://localhost");
    this.subscriptions = this.address.searchParams.getAll("subscribe").map((text) => JSON.parse(text));
    this.closed = new Promise((resolve) => response.on("close", resolve));
  }

  write(text) {
    this.#response.write(text);
  }

  send(...messages) {
    this.write(messages.map((message) => `event: ${message.type}\ndata: ${JSON.stringify(message)}\n\n`).join(""));
  }

  welcome(more = {}) {
    this.send({ type: "welcome", client: "s", ping_ms: 25_000, pong_ms: 8_000, ...more });
  }

  end() {
    this.#response.end();
  }
}
