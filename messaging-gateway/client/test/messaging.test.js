import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { afterEach, test } from "node:test";

import { Messaging } from "../messaging.js";
import { Gateway, Queue, until, within } from "./gateway.js";

const clients = [];

function connect(gateway, options = {}) {
  const messaging = new Messaging(gateway.url, { backoff: { min: 1, max: 20 }, ...options });
  clients.push(messaging);
  messaging.states = [];
  messaging.errors = [];
  messaging.on("state", (state) => messaging.states.push(state));
  messaging.on("error", (error) => messaging.errors.push(error));
  return messaging;
}

/** Everything that a subscription tells, as short text in the order in which it came. */
function log(subscription) {
  const lines = [];
  subscription.on("subscribed", ({ isAgain, isResumed, count }) => lines.push(`subscribed ${isAgain ? "again " : ""}${isResumed ? "resumed " : ""}${count}`));
  subscription.on("event", (data, { isPast }) => lines.push(`${isPast ? "past" : "event"} ${JSON.stringify(data)}`));
  subscription.on("gap", ({ reason }) => lines.push(`gap ${reason}`));
  subscription.on("unsubscribed", ({ code, isFinal }) => lines.push(`unsubscribed ${code} ${isFinal}`));
  subscription.on("error", ({ code, temporary }) => lines.push(`error ${code} ${temporary}`));
  return lines;
}

const event = (channel, n, position = true) => ({ type: "event", channel, ...(position && { offset: `${n}` }), data: n });

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await Gateway.stopAll();
});

test("hello and subscriptions go out in one frame, and what follows an answer at once is not lost", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway, { token: "t" });
  const a = messaging.subscribe({ entity: "Cameras", params: { complex_id: 7 }, filters: { camera_id: { in: [1, 2] } }, last: 2, presence: true });
  const lines = log(a);
  const connection = await gateway.connections.take();
  await until(() => connection.frames.length > 0, "a frame has come");
  assert.deepEqual(connection.frames[0], [
    { type: "hello", token: "t" },
    { type: "subscribe", id: 1, entity: "Cameras", params: { complex_id: 7 }, filters: { camera_id: { in: [1, 2] } }, last: 2, presence: true },
  ]);
  connection.send(
    { type: "welcome", client: "c1", user: "ada", ping_ms: 1000, pong_ms: 1000, something: "new" },
    { type: "subscribed", id: 1, channel: "cameras:7", epoch: "e", offset: "2", events: [{ offset: "1", data: 1 }, { offset: "2", data: 2 }] },
    event("cameras:7", 3),
    { type: "something new", channel: "cameras:7" },
    event("cameras:7", 4),
  );
  await until(() => lines.length === 5, "all has come");
  assert.deepEqual(lines, ["subscribed 2", "past 1", "past 2", "event 3", "event 4"]);
  assert.equal(a.channel, "cameras:7");
  assert.deepEqual(a.position, { epoch: "e", offset: "4" });
  assert.equal(messaging.client, "c1");
  assert.deepEqual(messaging.states.map(({ state }) => state), ["connecting", "connected"]);
});

test("events before the first listener are kept for it, with the gaps between them", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const connection = await gateway.connections.take();
  await connection.welcome();
  const { id } = await connection.take("subscribe");
  connection.send({ type: "subscribed", id, channel: "a", epoch: "e", offset: "1", events: [{ offset: "1", data: 1 }] }, { type: "gap", channel: "a", reason: "slow" }, event("a", 2));
  await subscription.ready;
  await until(() => subscription.position.offset === "2", "the second event has come");
  const lines = log(subscription);
  connection.send(event("a", 3));
  await until(() => lines.length === 4, "all has come");
  assert.deepEqual(lines, ["past 1", "gap slow", "event 2", "event 3"]);
});

test("so many events are kept and no more, and what is dropped is told", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const connection = await gateway.connections.take();
  await connection.welcome();
  await connection.subscribed({ epoch: "e", offset: "0" });
  for (let n = 1; n <= 1_500; n++) connection.send(event("a", n));
  await until(() => subscription.position?.offset === "1500", "the last event has come");
  const lines = log(subscription);
  await until(() => lines.length > 0, "they are told");
  assert.equal(lines.length, 1_000);
  assert.equal(lines[0], "gap unheard");
  assert.equal(lines[1], "event 502");
  assert.equal(lines.at(-1), "event 1500");
});

test("a lost connection is opened again and resumes where it was", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const lines = log(messaging.subscribe({ channel: "a", last: 5 }));
  const first = await gateway.connections.take();
  await first.welcome();
  assert.equal((await first.subscribed({ epoch: "e", offset: "0" })).last, 5);
  first.send(event("a", 1), event("a", 2));
  await until(() => lines.length === 3, "both have come");
  first.cut();
  const second = await gateway.connections.take();
  await second.welcome();
  const { resume, last } = await second.subscribed({ epoch: "e", offset: "4", recovered: true, events: [{ offset: "3", data: 3 }, { offset: "4", data: 4 }] });
  assert.deepEqual(resume, { epoch: "e", offset: "2" });
  assert.equal(last, undefined);
  second.send(event("a", 5));
  await until(() => lines.length === 7, "all has come");
  assert.deepEqual(lines, ["subscribed 0", "event 1", "event 2", "subscribed again resumed 2", "past 3", "past 4", "event 5"]);
  assert.deepEqual(messaging.states.map(({ state }) => state), ["connecting", "connected", "waiting", "connecting", "connected"]);
  const waiting = messaging.states[2];
  assert.ok(waiting.delay >= 1 && waiting.delay <= 20 && waiting.until <= Date.now(), JSON.stringify(waiting));
});

test("what cannot be recovered, or is not resumable, is told as a gap before what comes next", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const stream = log(messaging.subscribe({ channel: "stream" }));
  const plain = log(messaging.subscribe({ channel: "plain" }));
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed({ epoch: "e", offset: "7" });
  await first.subscribed();
  await until(() => plain.length === 1, "both are subscribed");
  first.cut();
  const second = await gateway.connections.take();
  await second.welcome();
  assert.deepEqual((await second.subscribed({ epoch: "f", offset: "9", recovered: false, events: [{ offset: "9", data: 9 }] })).resume, { epoch: "e", offset: "7" });
  await second.subscribed();
  second.send(event("stream", 10), event("plain", 1, false));
  await until(() => plain.length === 4 && stream.length === 5, "all has come");
  assert.deepEqual(stream, ["subscribed 0", "subscribed again 1", "gap unrecovered", "past 9", "event 10"]);
  assert.deepEqual(plain, ["subscribed 0", "subscribed again 0", "gap disconnected", "event 1"]);
});

test("a gap of the server moves the position, and so does a position", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const lines = log(subscription);
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed({ epoch: "e", offset: "1" });
  first.send({ type: "gap", channel: "a", reason: "reset", epoch: "f", offset: "0" });
  await until(() => lines.length === 2, "the gap has come");
  assert.deepEqual(subscription.position, { epoch: "f", offset: "0" });
  first.send(event("a", 1), { type: "gap", channel: "a", reason: "slow" });
  await until(() => lines.length === 4, "the second has come");
  assert.deepEqual(subscription.position, { epoch: "f", offset: "1" });
  first.send({ type: "position", channel: "a", offset: "5" });
  await until(() => subscription.position.offset === "5", "the position has come");
  first.cut();
  const second = await gateway.connections.take();
  await second.welcome();
  assert.deepEqual((await second.take("subscribe")).resume, { epoch: "f", offset: "5" });
});

test("an unrecoverable position is given up, with a gap", async () => {
  const gateway = await Gateway.start();
  const lines = log(connect(gateway).subscribe({ channel: "a", resume: { epoch: "x", offset: "y" }, last: 3 }));
  const connection = await gateway.connections.take();
  await connection.welcome();
  const { id, last } = await connection.take("subscribe");
  assert.equal(last, undefined);
  connection.send({ type: "error", id, code: 112, message: "unrecoverable position", temporary: false });
  assert.equal((await connection.subscribed({ epoch: "e", offset: "1" })).resume, undefined);
  await until(() => lines.length === 2, "it is subscribed");
  assert.deepEqual(lines, ["subscribed 0", "gap unrecovered"]);
});

test("each event comes once and in order, however often the connection is cut", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const got = [];
  const gaps = [];
  const subscription = messaging.subscribe({ channel: "a" });
  subscription.on("event", (n) => got.push(n));
  subscription.on("gap", (gap) => gaps.push(gap));
  const total = 400;
  let published = 0;
  let isOver = false;
  let cuts = 0;
  // A server that resumes from its log, and at random is cut in the middle, hands over, or says goodbye.
  const serve = async () => {
    while (!isOver) {
      const connection = await gateway.connections.take().catch(() => null);
      if (!connection) return;
      (async () => {
        await connection.welcome();
        const { id, resume } = await connection.take("subscribe");
        let sent = resume ? Number(resume.offset) : 0;
        const events = [];
        while (sent < published) events.push({ offset: `${++sent}`, data: sent });
        connection.send({ type: "subscribed", id, channel: "a", epoch: "e", offset: `${sent}`, ...(resume && { recovered: true }), events });
        let isGone = false;
        connection.closed.then(() => (isGone = true));
        const end = sent + Math.floor(Math.random() * 30);
        while (!isGone && sent < total) {
          const burst = Math.floor(Math.random() * 5);
          published = Math.max(published, Math.min(total, sent + burst));
          const messages = [];
          while (sent < published) messages.push(event("a", ++sent));
          if (messages.length > 0) connection.send(...messages);
          if (sent >= end && sent < total) {
            cuts++;
            const how = Math.floor(Math.random() * 3);
            if (how === 0) connection.cut();
            else if (how === 1) connection.send({ type: "disconnect", code: 3001, reason: "shutdown", reconnect: true });
            else connection.send({ type: "goaway", after_ms: 5 });
            if (how !== 2) return;
          }
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      })().catch((error) => isOver || got.push(error.message));
    }
  };
  serve();
  await within(until(() => got.length >= total, "all has come"), "all events", 20_000);
  isOver = true;
  assert.deepEqual(got, Array.from({ length: total }, (_, index) => index + 1));
  assert.deepEqual(gaps, []);
  assert.ok(cuts > 5, `${cuts} cuts`);
});

test("goaway opens the new connection before the old one is left, and answers still come", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const subscription = messaging.subscribe({ channel: "a" });
  const lines = log(subscription);
  const old = await gateway.connections.take();
  await old.welcome({ client: "one" });
  await old.subscribed({ epoch: "e", offset: "0" });
  old.send(event("a", 1));
  await until(() => lines.length === 2, "the event has come");
  const sent = subscription.send("hi");
  const question = await old.take("send");
  old.send({ type: "goaway", after_ms: 20 });
  const fresh = await gateway.connections.take();
  await fresh.take("hello");
  // Not welcome yet: the old one goes on.
  old.send(event("a", 2));
  await until(() => lines.length === 3, "the event has come");
  fresh.send({ type: "welcome", client: "two", ping_ms: 1000, pong_ms: 1000 });
  const { id, resume } = await fresh.take("subscribe");
  assert.deepEqual(resume, { epoch: "e", offset: "2" });
  // What the old one says of the channel now comes with the new one, but an answer is an answer.
  old.send(event("a", 3), { type: "ok", id: question.id });
  await sent;
  await old.closed;
  fresh.send({ type: "subscribed", id, channel: "a", epoch: "e", offset: "3", recovered: true, events: [{ offset: "3", data: 3 }] });
  await until(() => lines.length === 5, "the rest has come");
  assert.deepEqual(lines, ["subscribed 0", "event 1", "event 2", "subscribed again resumed 1", "past 3"]);
  assert.deepEqual(messaging.states.map(({ state, client }) => client ?? state), ["connecting", "one", "two"]);
});

test("a gateway that goes before another one takes over is only a lost connection", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const lines = log(messaging.subscribe({ channel: "a" }));
  const old = await gateway.connections.take();
  await old.welcome();
  await old.subscribed({ epoch: "e", offset: "1" });
  old.send({ type: "goaway", after_ms: 0 });
  const next = await gateway.connections.take();
  await next.take("hello");
  old.close(3001, "shutdown");
  await until(() => messaging.state.state === "connecting", "the loss is seen");
  next.send({ type: "welcome", client: "two", ping_ms: 1000, pong_ms: 1000 });
  await next.subscribed({ epoch: "e", offset: "1", recovered: true });
  await until(() => lines.length === 2, "it is subscribed again");
  assert.deepEqual(lines, ["subscribed 0", "subscribed again resumed 0"]);
});

for (const [how, end] of [
  ["disconnect without reconnect", (connection) => connection.send({ type: "disconnect", code: 3503, reason: "forced", reconnect: false })],
  ["a close code from 3500 on", (connection) => connection.close(3504, "connection limit")],
]) {
  test(`${how} is the end, until connect`, async () => {
    const gateway = await Gateway.start();
    const messaging = connect(gateway);
    const subscription = messaging.subscribe({ channel: "a" });
    const connection = await gateway.connections.take();
    await connection.welcome();
    await connection.subscribed({ epoch: "e", offset: "1" });
    await subscription.ready;
    end(connection);
    await until(() => messaging.state.state === "closed", "it is closed");
    await assert.rejects(subscription.send(1), { code: "closed" });
    messaging.connect();
    const again = await gateway.connections.take();
    await again.welcome();
    assert.deepEqual((await again.take("subscribe")).resume, { epoch: "e", offset: "1" });
  });
}

test("a close code below 3500 is not the end", async () => {
  const gateway = await Gateway.start();
  connect(gateway);
  (await gateway.connections.take()).close(3004, "internal error");
  await gateway.connections.take();
});

test("delays grow up to the largest, with jitter, and start anew after a connection that lasted", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const sockets = [];
  class FakeSocket {
    readyState = 1;
    constructor() {
      sockets.push(this);
    }
    send() {}
    close() {}
  }
  const messaging = connect({ url: "ws://localhost/" }, { WebSocket: FakeSocket, backoff: { min: 50, max: 20_000 } });
  const delays = [];
  messaging.on("state", (state) => state.state === "waiting" && delays.push(state.delay));
  const settle = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  };
  await settle();
  for (let attempt = 0; attempt < 15; attempt++) {
    sockets.at(-1).onclose({ code: 1006, reason: "" });
    assert.equal(delays.length, attempt + 1);
    assert.ok(delays[attempt] >= 50 && delays[attempt] <= Math.min(20_000, 50 * 2 ** (attempt + 1)), `${attempt}: ${delays[attempt]}`);
    t.mock.timers.tick(Math.ceil(delays[attempt]));
    await settle();
    assert.equal(sockets.length, attempt + 2);
  }
  assert.ok(new Set(delays).size > 10, "there is jitter");
  assert.ok(Math.max(...delays) > 1_000, "they grow");
  const receive = (message) => sockets.at(-1).onmessage({ data: JSON.stringify(message) });
  receive({ type: "welcome", client: "c", ping_ms: 25_000, pong_ms: 8_000 });
  t.mock.timers.tick(6_000);
  sockets.at(-1).onclose({ code: 1006, reason: "" });
  assert.ok(delays.at(-1) <= 100, `${delays.at(-1)}`);
});

test("pings are answered, and a silent server is left", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const connection = await gateway.connections.take();
  await connection.welcome({ ping_ms: 60, pong_ms: 40 });
  const begin = Date.now();
  connection.send({ type: "ping" });
  await connection.take("pong");
  const again = await gateway.connections.take();
  assert.ok(Date.now() - begin >= 95, `after ${Date.now() - begin} ms`);
  assert.match(messaging.states.find(({ state }) => state === "waiting").reason, /silent/);
  // Any message is a sign of life.
  await again.welcome({ ping_ms: 60, pong_ms: 40 });
  for (let turn = 0; turn < 10; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    again.send({ type: "event", channel: "nobody's", data: 1 });
  }
  assert.equal(gateway.connections.size, 0);
});

test("a server that does not welcome is given up", async () => {
  const gateway = await Gateway.start();
  connect(gateway, { handshakeTimeout: 30 });
  await (await gateway.connections.take()).take("hello");
  await gateway.connections.take();
});

test("requests are answered, refused, and time out", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway, { requestTimeout: 80 });
  const subscription = messaging.subscribe({ channel: "a" });
  const early = subscription.presence();
  const connection = await gateway.connections.take();
  await connection.welcome();
  await connection.subscribed({ epoch: "e", offset: "1" });
  const presence = await connection.take("presence");
  connection.send({ type: "ok", id: presence.id, members: { c: { user: "ada" } } });
  assert.deepEqual(await early, { c: { user: "ada" } });

  const history = subscription.history({ since: { epoch: "e", offset: "0" }, limit: 3 });
  const asked = await connection.take("history");
  assert.deepEqual(asked, { type: "history", id: asked.id, channel: "a", since: { epoch: "e", offset: "0" }, limit: 3 });
  connection.send({ type: "ok", id: asked.id, epoch: "e", offset: "1", events: [{ offset: "1", data: 1 }] });
  assert.deepEqual(await history, { epoch: "e", offset: "1", events: [{ offset: "1", data: 1 }] });

  const refused = subscription.send("no");
  connection.send({ type: "error", id: (await connection.take("send")).id, code: 103, message: "permission denied", temporary: false });
  await assert.rejects(refused, { code: 103, message: "permission denied", notSent: true });

  const slow = subscription.send("slow");
  const late = await connection.take("send");
  await assert.rejects(slow, { code: "timeout", notSent: false });
  connection.send({ type: "ok", id: late.id });

  await assert.rejects(subscription.send("x".repeat(70_000)), { code: "too_large", notSent: true });
  subscription.unsubscribe();
  await connection.take("unsubscribe");
  await assert.rejects(subscription.send("late"), { code: "unsubscribed" });
});

test("what was perhaps sent is not sent again, what does no harm is asked again", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed();
  const sent = subscription.send("once");
  const asked = subscription.presence();
  await first.take("send");
  await first.take("presence");
  first.cut();
  await assert.rejects(sent, { code: "lost", notSent: false });
  const second = await gateway.connections.take();
  await second.welcome();
  await second.subscribed();
  second.send({ type: "ok", id: (await second.take("presence")).id, members: {} });
  assert.deepEqual(await asked, {});
});

test("too many requests are sent again later", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const connection = await gateway.connections.take();
  await connection.welcome();
  await connection.subscribed();
  const sent = subscription.send("hi");
  connection.send({ type: "error", id: (await connection.take("send")).id, code: 111, message: "too many requests", temporary: true });
  const again = await connection.take("send");
  assert.equal(again.data, "hi");
  connection.send({ type: "ok", id: again.id });
  await sent;
});

test("a subscription is tried again after a temporary error, and ends with a final one", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const subscription = messaging.subscribe({ channel: "a" });
  const forbidden = messaging.subscribe({ channel: "b" });
  const [a, b] = [log(subscription), log(forbidden)];
  const connection = await gateway.connections.take();
  await connection.welcome();
  connection.send({ type: "error", id: (await connection.take("subscribe")).id, code: 100, message: "internal server error", temporary: true });
  connection.send({ type: "error", id: (await connection.take("subscribe")).id, code: 103, message: "permission denied", temporary: false });
  assert.equal((await connection.subscribed()).channel, "a");
  await subscription.ready;
  await assert.rejects(forbidden.ready, { code: 103 });
  assert.deepEqual(a, ["error 100 true", "subscribed 0"]);
  assert.deepEqual(b, ["error 103 false"]);
  connection.cut();
  const next = await gateway.connections.take();
  await next.welcome();
  assert.equal((await next.subscribed()).channel, "a");
  await until(() => a.length === 4, "a is subscribed again");
  assert.equal(next.messages.size, 0);
});

test("unsubscribed by the server: from 2500 on it comes back", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const [a, b] = [log(messaging.subscribe({ channel: "a" })), log(messaging.subscribe({ channel: "b" }))];
  const connection = await gateway.connections.take();
  await connection.welcome();
  await connection.subscribed({ epoch: "e", offset: "5" });
  await connection.subscribed();
  connection.send({ type: "unsubscribed", channel: "a", code: 2500, reason: "insufficient state" }, { type: "unsubscribed", channel: "b", code: 2000, reason: "server" });
  assert.deepEqual((await connection.subscribed({ epoch: "e", offset: "5", recovered: true })).resume, { epoch: "e", offset: "5" });
  await until(() => a.length === 3, "it is subscribed again");
  assert.deepEqual(a, ["subscribed 0", "unsubscribed 2500 false", "subscribed again resumed 0"]);
  assert.deepEqual(b, ["subscribed 0", "unsubscribed 2000 true"]);
});

test("of several updates the last one counts, and all are told", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a", filters: { n: 0 } });
  const connection = await gateway.connections.take();
  await connection.welcome();
  assert.deepEqual((await connection.subscribed()).filters, { n: 0 });
  await subscription.ready;
  const updates = [1, 2, 3].map((n) => subscription.update({ n }));
  const first = await connection.take("update");
  assert.deepEqual(first.filters, { n: 1 });
  connection.send({ type: "ok", id: first.id });
  const second = await connection.take("update");
  assert.deepEqual(second.filters, { n: 3 });
  connection.send({ type: "ok", id: second.id });
  await Promise.all(updates);
  const all = subscription.update();
  const third = await connection.take("update");
  assert.deepEqual(third.filters, {});
  connection.send({ type: "ok", id: third.id });
  await all;
});

test("filters that are refused leave those of before, also across a reconnect", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a", filters: { n: 1 } });
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed();
  await subscription.ready;
  const wrong = subscription.update({ wrong: 1 });
  first.send({ type: "error", id: (await first.take("update")).id, code: 107, message: "bad request", temporary: false });
  await assert.rejects(wrong, { code: 107 });
  const unanswered = subscription.update({ wrong: 2 });
  await first.take("update");
  first.cut();
  const second = await gateway.connections.take();
  await second.welcome();
  const asked = await second.take("subscribe");
  assert.deepEqual(asked.filters, { wrong: 2 });
  second.send({ type: "error", id: asked.id, code: 107, message: "bad request", temporary: false });
  await assert.rejects(unanswered, { code: 107 });
  assert.deepEqual((await second.subscribed()).filters, { n: 1 });
  const good = subscription.update({ n: 2 });
  const update = await second.take("update");
  assert.deepEqual(update.filters, { n: 2 });
  second.send({ type: "ok", id: update.id });
  await good;
});

test("an update without a connection comes with the next one", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a" });
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed();
  await subscription.ready;
  first.cut();
  await until(() => !subscription.isSubscribed, "the loss is seen");
  const updated = subscription.update({ n: 1 });
  const second = await gateway.connections.take();
  await second.welcome();
  assert.deepEqual((await second.subscribed()).filters, { n: 1 });
  await updated;
});

test("what is given up before its answer is unsubscribed from, and may be asked for again at once", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const first = messaging.subscribe({ entity: "E" });
  const connection = await gateway.connections.take();
  await connection.welcome();
  const asked = await connection.take("subscribe");
  first.unsubscribe();
  const second = messaging.subscribe({ entity: "E" });
  connection.send({ type: "subscribed", id: asked.id, channel: "e" });
  const messages = [await connection.take("unsubscribe"), await connection.take("subscribe")];
  assert.deepEqual(messages.map(({ type, channel, entity }) => [type, channel ?? entity]), [["unsubscribe", "e"], ["subscribe", "E"]]);
  connection.send({ type: "ok", id: messages[0].id }, { type: "subscribed", id: messages[1].id, channel: "e" });
  const got = new Queue();
  second.on("event", (data) => got.push(data));
  await second.ready;
  connection.send(event("e", 1));
  assert.equal(await got.take(), 1);
  await assert.rejects(first.ready, { code: "unsubscribed" });
});

test("a token is made once, and again before it expires", async () => {
  const gateway = await Gateway.start();
  let made = 0;
  const messaging = connect(gateway, { getToken: async () => `token ${++made}` });
  const first = await gateway.connections.take();
  assert.equal((await first.welcome({ expires_in_ms: 200 })).token, "token 1");
  const refresh = await first.take("refresh");
  assert.equal(refresh.token, "token 2");
  first.send({ type: "error", id: refresh.id, code: 100, message: "internal server error", temporary: true });
  const again = await first.take("refresh");
  assert.equal(again.token, "token 3");
  first.send({ type: "ok", id: again.id, expires_in_ms: 3_600_000 });
  await new Promise((resolve) => setTimeout(resolve, 20));
  first.cut();
  const second = await gateway.connections.take();
  assert.equal((await second.welcome()).token, "token 3");
  assert.equal(messaging.errors.length, 1);
});

test("an old token that is refused is replaced once, a new one is the end", async () => {
  const gateway = await Gateway.start();
  let made = 0;
  const messaging = connect(gateway, { getToken: () => `token ${++made}` });
  const first = await gateway.connections.take();
  await first.welcome();
  await until(() => messaging.state.state === "connected", "it is connected");
  first.cut();
  const invalid = { type: "disconnect", code: 3500, reason: "invalid token", reconnect: false };
  const second = await gateway.connections.take();
  assert.equal((await second.take("hello")).token, "token 1");
  second.send(invalid);
  const third = await gateway.connections.take();
  assert.equal((await third.take("hello")).token, "token 2");
  third.send(invalid);
  await until(() => messaging.state.state === "closed", "it is closed");
  assert.equal(messaging.state.code, 3500);
});

test("an expired connection comes back with a new token, and a token that cannot be had is asked for again", async () => {
  const gateway = await Gateway.start();
  let made = 0;
  const getToken = async () => {
    if (++made === 2) throw new Error("no");
    return `token ${made}`;
  };
  const messaging = connect(gateway, { getToken });
  const first = await gateway.connections.take();
  await first.welcome();
  first.close(3005, "connection expired");
  assert.equal((await (await gateway.connections.take()).take("hello")).token, "token 3");
  assert.deepEqual(messaging.errors.map(({ code }) => code), ["token"]);
});

test("a listener that throws disturbs nothing", async (t) => {
  const gateway = await Gateway.start();
  const reported = t.mock.method(console, "error", () => {});
  const messaging = connect(gateway);
  messaging.on("state", () => {
    throw new Error("state");
  });
  const subscription = messaging.subscribe({ channel: "a" });
  subscription.on("event", () => {
    throw new Error("event");
  });
  const got = log(subscription);
  const connection = await gateway.connections.take();
  await connection.welcome();
  await connection.subscribed({ epoch: "e", offset: "0" });
  connection.send(event("a", 1), "this is no JSON", event("a", 2));
  await until(() => got.length === 3, "both have come");
  assert.ok(reported.mock.callCount() >= 4);
  assert.deepEqual(messaging.errors.map(({ code }) => code), ["protocol"]);
});

test("a listener may close and unsubscribe in the middle of what is past", async () => {
  const gateway = await Gateway.start();
  const messaging = connect(gateway);
  const subscription = messaging.subscribe({ channel: "a" });
  const got = [];
  subscription.on("event", (n) => {
    got.push(n);
    if (n === 2) messaging.close();
  });
  const first = await gateway.connections.take();
  await first.welcome();
  await first.subscribed({ epoch: "e", offset: "3", events: [1, 2, 3].map((n) => ({ offset: `${n}`, data: n })) });
  await first.closed;
  assert.deepEqual(got, [1, 2]);
  messaging.connect();
  const second = await gateway.connections.take();
  await second.welcome();
  const { resume } = await second.subscribed({ epoch: "e", offset: "3", recovered: true, events: [{ offset: "3", data: 3 }] });
  assert.deepEqual(resume, { epoch: "e", offset: "2" });
  await until(() => got.length === 3, "the rest has come");
  assert.deepEqual(got, [1, 2, 3]);
});

test("joins and leaves", async () => {
  const gateway = await Gateway.start();
  const subscription = connect(gateway).subscribe({ channel: "a", presence: true });
  const changes = new Queue();
  subscription.on("joinLeave", (change) => changes.push(change));
  const connection = await gateway.connections.take();
  await connection.welcome();
  assert.equal((await connection.subscribed()).presence, true);
  connection.send({ type: "join_leave", channel: "a", joins: { c1: { user: "ada", info: { n: 1 } } }, leaves: {} });
  assert.deepEqual(await changes.take(), { joins: { c1: { user: "ada", info: { n: 1 } } }, leaves: {} });
});

test("nothing keeps a process alive after close", async () => {
  const gateway = await Gateway.start();
  const script = `
    import { Messaging } from ${JSON.stringify(new URL("../messaging.js", import.meta.url).href)};
    const messaging = new Messaging(${JSON.stringify(gateway.url)}, { getToken: () => "t", sse: ${JSON.stringify(gateway.sse)} });
    const a = messaging.subscribe({ channel: "a" });
    messaging.on("state", ({ state }) => {
      if (state !== "connected") return;
      a.send(1).catch(() => {});
      a.update({ n: 1 }).catch(() => {});
      setTimeout(() => messaging.close(), 30);
    });`;
  const child = spawn(process.execPath, ["--experimental-websocket", "--input-type=module", "-e", script], { stdio: ["ignore", "inherit", "ignore"] });
  const exit = new Promise((resolve) => child.on("exit", resolve));
  const connection = await gateway.connections.take();
  await connection.welcome({ expires_in_ms: 3_600_000 });
  try {
    assert.equal(await within(exit, "the end of the process", 4_000), 0);
  } finally {
    child.kill();
  }
});
