import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { Messaging } from "../messaging.js";
import { Gateway, until } from "./gateway.js";

const clients = [];

function connect(gateway, options = {}) {
  const messaging = new Messaging(gateway.url, { backoff: { min: 1, max: 10 }, sse: gateway.sse, ...options });
  clients.push(messaging);
  messaging.states = [];
  messaging.on("state", ({ state, transport }) => messaging.states.push(transport ? `${state} ${transport}` : state));
  return messaging;
}

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await Gateway.stopAll();
});

test("what blocks WebSockets is got around, with the same events", async () => {
  const gateway = await Gateway.start();
  gateway.refusesUpgrades = true;
  const messaging = connect(gateway, { getToken: () => "t" });
  const cameras = messaging.subscribe({ entity: "Cameras", params: { complex_id: 7 }, filters: { camera_id: { in: [1] } }, last: 2 });
  const refused = messaging.subscribe({ channel: "secret" });
  const got = [];
  cameras.on("event", (data, { isPast }) => got.push([data, isPast]));
  const stream = await gateway.streams.take();
  assert.equal(gateway.upgrades, 3);
  assert.equal(stream.headers.authorization, "Bearer t");
  assert.deepEqual(stream.subscriptions, [
    { entity: "Cameras", params: { complex_id: 7 }, filters: { camera_id: { in: [1] } }, last: 2 },
    { channel: "secret" },
  ]);
  stream.welcome();
  stream.send(
    { type: "subscribed", channel: "cameras:7", epoch: "e", offset: "1", events: [{ offset: "1", data: 1 }] },
    { type: "error", code: 103, message: "permission denied", temporary: false },
    { type: "event", channel: "cameras:7", offset: "2", data: 2 },
  );
  await assert.rejects(refused.ready, { code: 103 });
  await until(() => got.length === 2, "both have come");
  assert.deepEqual(got, [[1, true], [2, false]]);
  assert.equal(messaging.states.at(-1), "connected sse");
  await assert.rejects(cameras.send("hi"), { code: 108 });
  await assert.rejects(cameras.history(), { code: 108 });

  // The end of a stream is not the end.
  stream.end();
  const next = await gateway.streams.take();
  assert.deepEqual(next.subscriptions, [
    { entity: "Cameras", params: { complex_id: 7 }, filters: { camera_id: { in: [1] } }, resume: { epoch: "e", offset: "2" } },
  ]);
  next.welcome();
  next.send({ type: "subscribed", channel: "cameras:7", epoch: "e", offset: "3", recovered: true, events: [{ offset: "3", data: 3 }] });
  await until(() => got.length === 3, "the third has come");

  // Other filters take another stream.
  const updated = cameras.update({ camera_id: 2 });
  const other = await gateway.streams.take();
  await next.closed;
  assert.deepEqual(other.subscriptions[0].filters, { camera_id: 2 });
  assert.deepEqual(other.subscriptions[0].resume, { epoch: "e", offset: "3" });
  other.welcome();
  other.send({ type: "subscribed", channel: "cameras:7", epoch: "e", offset: "3", recovered: true });
  await updated;
});

test("an event stream is read in whatever pieces it comes", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway, { WebSocket: undefined, sseAfter: 0 });
  const subscription = messaging.subscribe({ channel: "a" });
  const got = [];
  subscription.on("event", (data) => got.push(data));
  gateway.refusesUpgrades = true;
  const stream = await gateway.streams.take();
  stream.welcome();
  const text =
    ": a comment\r\n\r\n" +
    'event: subscribed\ndata: {"type":"subscribed",\ndata: "channel":"a"}\nid: a=1\n\n' +
    'data:{"type":"event","channel":"a","data":"one"}\r\r' +
    'event: event\r\ndata: {"channel":"a","data":"zwei \u00fc \u{1F980}"}\r\n\r\n' +
    "event: nothing\n\n" +
    'retry: 10\nid\nunknown: field\ndata: {"type":"event","channel":"a","data":"three"}\n\n' +
    'data: {"type":"event","channel":"a","data":"not dispatched"}\n';
  const bytes = Buffer.from(text);
  for (const byte of bytes) {
    stream.write(Buffer.from([byte]));
    if (byte === 10 || byte === 13) await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => got.length === 3, "all have come");
  assert.deepEqual(got, ["one", "zwei \u00fc \u{1F980}", "three"]);
  stream.end();
  await (await gateway.streams.take()).welcome();
  assert.equal(got.length, 3);
});

test("a silent stream is left, a comment is a sign of life", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway, { sseAfter: 0 });
  gateway.refusesUpgrades = true;
  messaging.subscribe({ channel: "a" });
  const stream = await gateway.streams.take();
  stream.welcome({ ping_ms: 60, pong_ms: 40 });
  for (let turn = 0; turn < 10; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    stream.write(":\n\n");
  }
  assert.equal(gateway.streams.size, 0);
  await gateway.streams.take("another stream");
  await stream.closed;
});

test("subscriptions that come and go take another stream, and none takes none", async () => {
  const gateway = await Gateway.start();
  gateway.refusesUpgrades = true;
  const messaging = connect(gateway, { sseAfter: 0 });
  await until(() => messaging.states.includes("connecting sse"), "it would connect");
  const a = messaging.subscribe({ channel: "a" });
  const b = messaging.subscribe({ channel: "b" });
  const first = await gateway.streams.take();
  assert.deepEqual(first.subscriptions, [{ channel: "a" }, { channel: "b" }]);
  first.welcome();
  first.send({ type: "subscribed", channel: "a" }, { type: "subscribed", channel: "b" });
  await b.ready;
  a.unsubscribe();
  const second = await gateway.streams.take();
  assert.deepEqual(second.subscriptions, [{ channel: "b" }]);
  second.welcome();
  second.send({ type: "subscribed", channel: "b" });
  await until(() => b.isSubscribed, "b is subscribed");
  b.unsubscribe();
  await second.closed;
  assert.equal(gateway.streams.size, 0);
});

test("when WebSockets get through after all, they take over without a loss", async () => {
  const gateway = await Gateway.start();
  gateway.refusesUpgrades = true;
  const messaging = connect(gateway);
  const subscription = messaging.subscribe({ channel: "a" });
  const got = [];
  subscription.on("event", (data) => got.push(data));
  const stream = await gateway.streams.take();
  gateway.refusesUpgrades = false;
  stream.welcome();
  stream.send({ type: "subscribed", channel: "a", epoch: "e", offset: "0" }, { type: "event", channel: "a", offset: "1", data: 1 });
  const connection = await gateway.connections.take();
  await connection.welcome();
  const { resume } = await connection.subscribed({ epoch: "e", offset: "2", recovered: true, events: [{ offset: "2", data: 2 }] });
  assert.deepEqual(resume, { epoch: "e", offset: "1" });
  await stream.closed;
  await until(() => got.length === 2, "both have come");
  assert.deepEqual(got, [1, 2]);
  assert.equal(messaging.states.at(-1), "connected websocket");
});

test("a stream that is refused with a new token is the end, until connect brings another", async () => {
  const gateway = await Gateway.start();
  gateway.refusesUpgrades = true;
  gateway.streamStatus = 401;
  let made = 0;
  const messaging = connect(gateway, { sseAfter: 0, getToken: () => `token ${++made}` });
  messaging.subscribe({ channel: "a" });
  await until(() => messaging.state.state === "closed", "it is closed");
  assert.equal(made, 1);
  gateway.streamStatus = 200;
  messaging.connect();
  const stream = await gateway.streams.take();
  assert.equal(stream.headers.authorization, "Bearer token 2");
});

test("both ways are tried in turn while neither works", async () => {
  const gateway = await Gateway.start();
  gateway.refusesUpgrades = true;
  gateway.streamStatus = 503;
  const messaging = connect(gateway);
  messaging.subscribe({ channel: "a" });
  await until(() => gateway.upgrades === 6, "it was tried often");
  const tried = messaging.states.filter((state) => state.startsWith("connecting")).map((state) => state.split(" ")[1]);
  assert.deepEqual(tried.slice(0, 8), ["websocket", "websocket", "websocket", "sse", "websocket", "sse", "websocket", "sse"]);
});
