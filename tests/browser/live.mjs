// The live wall in a real browser, on a real Redis: what people see while things go wrong.
//
//     MESSAGING_LIVE_BIN=target/debug/live MESSAGING_TEST_PLAYWRIGHT=<directory with node_modules/playwright-core> \
//       node tests/browser/live.mjs
//
// Redis is `REDIS_SERVER_BIN` or on PATH, the browser `MESSAGING_TEST_CHROMIUM` or `chromium` on PATH. Two gateways share
// one Redis: the pages are on one, which is restarted; the cameras are in the other, so that events never stop. Pictures of
// the pages, after each check that failed and at the end, go to the directory `MESSAGING_TEST_SCREENSHOTS`, if that is set.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { request, createServer as createHttpServer } from "node:http";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { existsSync } from "node:fs";

const PATIENCE = 20_000;
/** A single camera may see nothing for a while. */
const LONG_PATIENCE = 90_000;

function needed(name, why) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: ${why}`);
  return value;
}

function onPath(program) {
  const found = (process.env.PATH ?? "").split(delimiter).map((directory) => join(directory, program)).find(existsSync);
  if (!found) throw new Error(`there is no ${program} on PATH`);
  return found;
}

const live = resolve(needed("MESSAGING_LIVE_BIN", "the program of the example, as `cargo build --bin live` makes it"));
const playwright = resolve(needed("MESSAGING_TEST_PLAYWRIGHT", "a directory in which playwright-core is installed"));
const { chromium } = createRequire(join(playwright, "package.json"))("playwright-core");
const chromiumPath = process.env.MESSAGING_TEST_CHROMIUM || onPath("chromium");
const redisPath = process.env.REDIS_SERVER_BIN || onPath("redis-server");
const screenshots = process.env.MESSAGING_TEST_SCREENSHOTS;

// ---- processes

const running = new Set();

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** A program that listens on a port, and can be ended and begun again there. */
class Program {
  #process = null;
  #output = "";

  constructor(path, port, args, env = {}) {
    Object.assign(this, { path, port, args, env });
  }

  async start() {
    const child = spawn(this.path, this.args, { env: { ...process.env, ...this.env }, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    running.add(this);
    this.gone = new Promise((done) => child.on("exit", done));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (data) => (this.#output = (this.#output + data).slice(-4_000)));
    }
    await until(() => {
      assert.equal(child.exitCode, null, `${this.path} has ended:\n${this.#output}`);
      return accepts(this.port);
    }, `${this.path} listens`);
    return this;
  }

  async stop(signal = "SIGTERM") {
    this.#process?.kill(signal);
    await this.gone;
    running.delete(this);
  }

  get output() {
    return this.#output;
  }
}

function accepts(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => done(true) || socket.destroy());
    socket.on("error", () => done(false));
  });
}

/** Resolves with what `condition` says as soon as that is true. */
async function until(condition, what, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

// ---- pages

let browser;
let base;
/** What pages have complained of. While a server is gone they may say that they cannot reach it. */
const complaints = [];
let isOutage = false;

async function open({ name, path = base, init, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
  if (init) await init(context);
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    if (isOutage && /WebSocket connection|net::ERR_|Failed to load resource/.test(message.text())) return;
    complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(path);
  if (name) {
    await page.fill("#name", name);
    await page.click("#join button");
    await member(page, name);
  }
  return page;
}

const text = (page, selector) => page.locator(selector).innerText();
const figure = async (page, id) => Number((await text(page, `#${id}`)).replaceAll(",", ""));
const member = (page, name) => page.locator("#members li", { hasText: name }).first().waitFor();
const rows = (page) =>
  page.locator("#feed .event").evaluateAll((items) =>
    items.map((item) => ({ id: Number(item.dataset.id), camera: item.querySelector(".camera").textContent })));

async function say(page, words) {
  await page.fill("#text", words);
  await page.press("#text", "Enter");
}

const hears = (page, words) => page.locator("#messages", { hasText: words }).waitFor();
const isConnected = (page) => page.locator('#link[data-state="connected"]').waitFor();
const journal = (page) => text(page, "#journal");

/** Nothing was lost, nothing came twice, and no gap was told. */
async function isWhole(page) {
  assert.equal(await figure(page, "missed-count"), 0, "missed");
  assert.equal(await figure(page, "twice-count"), 0, "doubled");
  assert.equal(await page.locator(".is-gap").count(), 0, "gaps");
}

/** Pictures of the pages that stay open, if they are wanted; a page that shows nothing any more gives none. */
async function picture(when) {
  if (!screenshots) return;
  for (const [who, page] of Object.entries(pages)) {
    const path = join(screenshots, `${when}-${who}.png`.replaceAll(/[^\w.-]+/g, "-"));
    await page.screenshot({ path }).then(() => console.log(`        ${path}`), (error) => console.log(`        ${path}: ${error.message}`));
  }
}

async function moreEvents(page, count) {
  const before = await figure(page, "event-count");
  await until(async () => (await figure(page, "event-count")) >= before + count, `${count} more events have come`, LONG_PATIENCE);
}

async function outage(work) {
  isOutage = true;
  try {
    return await work();
  } finally {
    isOutage = false;
  }
}

// ---- the checks, in this order

const checks = [];
const check = (name, run) => checks.push({ name, run });
const pages = {};
let redis, gateway, cameras;

check("events arrive", async () => {
  pages.ada = await open({ name: "Ada" });
  await pages.ada.locator("#feed .event").first().waitFor();
  await moreEvents(pages.ada, 3);
  await isWhole(pages.ada);
});

check("filters change without a gap", async () => {
  const { ada } = pages;
  // Beside the page, all events: what the page must have seen is known from here.
  const all = await ada.evaluateHandle(async () => {
    const { Messaging } = await import("/messaging.js");
    const messaging = new Messaging("/subscribe", { getToken: async () => {
      const answer = await fetch("/session", { method: "POST", headers: { "content-type": "application/json" }, body: '{"name":"Observer"}' });
      return (await answer.json()).token;
    } });
    const events = [];
    const subscription = messaging.subscribe({ entity: "CameraEvents" });
    subscription.on("event", (event) => events.push(event));
    await subscription.ready;
    return { events, close: () => messaging.close() };
  });
  await ada.click("#no-cameras");
  await ada.check('input[value="2"]');
  const first = await until(() => all.evaluate(({ events }) => events.at(-1)?.id), "the observer sees events");
  const after = async (id) => (await all.evaluate(({ events }) => events)).filter((event) => event.id > id && event.camera_id === 2);
  await until(async () => (await after(first)).length >= 2, "camera 2 has seen something", LONG_PATIENCE);
  // Another one, back again, and all: camera 2 was wanted all the time.
  await ada.check('input[value="5"]');
  await moreEvents(ada, 1);
  await ada.uncheck('input[value="5"]');
  await moreEvents(ada, 1);
  await ada.click("#all-cameras");
  await moreEvents(ada, 3);
  const wanted = (await after(first)).map(({ id }) => id);
  const shown = await until(async () => {
    const shown = (await rows(ada)).filter(({ camera, id }) => camera === "Camera 2" && id > first).map(({ id }) => id);
    return wanted.every((id) => shown.includes(id)) && shown;
  }, `the page shows ${wanted}`);
  assert.equal(new Set(shown).size, shown.length, "each once");
  await isWhole(ada);

  await ada.click("#no-cameras");
  await ada.check('input[value="3"]');
  await moreEvents(ada, 1);
  const newest = Math.max(...(await rows(ada)).map(({ id }) => id));
  await moreEvents(ada, 1);
  for (const { id, camera } of await rows(ada)) if (id > newest) assert.equal(camera, "Camera 3");
  await ada.click("#all-cameras");
  await ada.selectOption("#complex", "2");
  await ada.locator("#feed .event").first().waitFor();
  await moreEvents(ada, 1);
  const complexes = await ada.locator("#feed .event .complex").allInnerTexts();
  assert.deepEqual([...new Set(complexes)], ["Complex 2"]);
  await ada.selectOption("#complex", "");
  await moreEvents(ada, 1);
  await all.evaluate(({ close }) => close());
  await isWhole(ada);
});

check("the chat goes both ways, and who is there is seen", async () => {
  pages.grace = await open({ name: "Grace", colorScheme: "dark" });
  const { ada, grace } = pages;
  await member(ada, "Grace");
  await member(grace, "Ada");
  await hears(ada, "Grace has joined");
  await say(ada, "Hello Grace");
  await hears(grace, "Hello Grace");
  await say(grace, "<b>Hello</b> Ada & all");
  await hears(ada, "<b>Hello</b> Ada & all");
  assert.equal(await ada.locator("#messages b").count(), 0, "text stays text");
  assert.equal(await text(ada, ".message.is-mine .who"), "Ada");
});

check("presence follows a tab that is killed", async () => {
  const victim = await open({ name: "Victim" });
  await member(pages.ada, "Victim");
  const session = await victim.context().newCDPSession(victim);
  session.send("Page.crash").catch(() => {});
  await pages.ada.locator("#members li", { hasText: "Victim" }).waitFor({ state: "detached" });
  await hears(pages.ada, "Victim has left");
  await victim.context().close();
});

check("a task goes on to its end", async () => {
  await pages.ada.fill("#task-title", "Look at it all");
  await pages.ada.press("#task-title", "Enter");
  for (const page of [pages.ada, pages.grace]) {
    const task = page.locator(".task", { hasText: "Look at it all" });
    await task.waitFor();
    await until(async () => ["completed", "failed"].includes(await task.getAttribute("data-status")), "it has ended", 60_000);
  }
});

check("a gateway that is restarted has cost nothing", async () => {
  // On the other gateway, which goes on: it shows what happens meanwhile.
  pages.beside = await open({ path: `http://127.0.0.1:${cameras.port}/` });
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    await outage(async () => {
      const { ada, grace } = pages;
      const told = (await journal(ada)).split("Back after").length;
      await gateway.stop(signal);
      await until(async () => (await ada.getAttribute("#link", "data-state")) !== "connected", "the loss is seen");
      assert.equal(await text(ada, "#state"), "Reconnecting");
      await moreEvents(pages.beside, 3);
      await gateway.start();
      for (const page of [ada, grace]) await isConnected(page);
      await until(async () => (await journal(ada)).split("Back after").length > told, "the page is back");
    });
    assert.match((await journal(pages.ada)).split("Back after")[1], /caught up on \d+ event/);
    await moreEvents(pages.ada, 2);
    for (const page of [pages.ada, pages.grace]) await isWhole(page);
    await say(pages.grace, `After ${signal}`);
    await hears(pages.ada, `After ${signal}`);
    await member(pages.ada, "Grace");
  }
});

check("a Redis that is restarted has cost nothing", async () => {
  await outage(async () => {
    await redis.stop("SIGKILL");
    // So long does the fault last.
    await new Promise((done) => setTimeout(done, 1_000));
    await redis.start();
    await moreEvents(pages.ada, 5);
  });
  for (const page of [pages.ada, pages.grace, pages.beside]) {
    await isConnected(page);
    await isWhole(page);
  }
  await say(pages.ada, "Redis is back");
  await hears(pages.grace, "Redis is back");
});

check("disconnecting and connecting catches up", async () => {
  const { grace } = pages;
  await grace.click("#switch");
  await until(async () => (await text(grace, "#state")) === "Disconnected", "it is disconnected");
  await say(pages.ada, "Meanwhile");
  await moreEvents(pages.ada, 3);
  await grace.click("#switch");
  await hears(grace, "Meanwhile");
  await until(async () => /caught up on \d+ events/.test(await journal(grace)), "it has caught up");
  await isWhole(grace);
});

check("where WebSockets do not get through, events come all the same", async () => {
  const page = await outage(async () => {
    const page = await open({ init: (context) => context.routeWebSocket(/./, (socket) => socket.close()) });
    await until(async () => (await text(page, "#state")) === "Connected, for reading only", "it reads");
    return page;
  });
  await moreEvents(page, 3);
  await page.uncheck('input[value="1"]');
  await moreEvents(page, 2);
  await isWhole(page);
  await outage(() => page.context().close());
});

check("another site is refused", async () => {
  const status = await new Promise((done, failed) => {
    const asking = request({
      host: "127.0.0.1",
      port: gateway.port,
      path: "/subscribe",
      headers: {
        origin: "http://evil.example",
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": Buffer.from("0123456789abcdef").toString("base64"),
      },
    });
    asking.on("upgrade", (response, socket) => done(101) || socket.destroy());
    asking.on("response", (response) => done(response.statusCode) || response.resume());
    asking.on("error", failed);
    asking.end();
  });
  assert.equal(status, 403);
  const site = createHttpServer((_, response) => response.setHeader("content-type", "text/html").end("<!doctype html><title>evil</title>"));
  await new Promise((done) => site.listen(0, "127.0.0.1", done));
  try {
    const page = await outage(() => open({ path: `http://localhost:${site.address().port}/` }));
    const seen = await outage(() => page.evaluate((port) => new Promise((done) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/subscribe`);
      socket.onopen = () => done("open");
      socket.onclose = () => done("refused");
    }), gateway.port));
    assert.equal(seen, "refused");
    await page.context().close();
  } finally {
    site.close();
  }
});

check("everything has a name, and the keyboard reaches it in order", async () => {
  const page = await open({ name: "Keys" });
  await page.reload();
  await member(page, "Keys");
  const problems = await page.evaluate(() => {
    const found = [];
    const seen = new Set();
    for (const { id } of document.querySelectorAll("[id]")) seen.has(id) ? found.push(`id ${id} is there twice`) : seen.add(id);
    for (const control of document.querySelectorAll("input, select, button, progress, [tabindex='0'], nav, section")) {
      const by = (control.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
      const own = control.matches("button") ? control.textContent : "";
      const label = [...(control.labels ?? [])].map(({ textContent }) => textContent).join(" ");
      if (!`${control.getAttribute("aria-label") ?? ""}${by}${own}${label}`.trim()) found.push(`${control.outerHTML.slice(0, 80)} has no name`);
    }
    for (const reference of document.querySelectorAll("[aria-describedby]")) {
      if (!document.getElementById(reference.getAttribute("aria-describedby"))) found.push(`${reference.id} is described by nothing`);
    }
    if (document.querySelectorAll("h1").length !== 1) found.push("there is not one h1");
    for (const landmark of ["header", "main", "nav"]) if (!document.querySelector(landmark)) found.push(`there is no ${landmark}`);
    if (!document.documentElement.lang) found.push("the language is not said");
    return found;
  });
  assert.deepEqual(problems, []);

  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  const order = [];
  for (let step = 0; step < 60; step++) {
    await page.keyboard.press("Tab");
    const now = await page.evaluate(() => {
      const focused = document.activeElement;
      if (!document.querySelector("main").contains(focused)) return null;
      const { outlineStyle } = getComputedStyle(focused.closest(".tile") ?? focused);
      const all = [...document.querySelectorAll("*")];
      return { place: all.indexOf(focused), isVisible: outlineStyle !== "none", what: focused.outerHTML.slice(0, 60) };
    });
    if (!now) break;
    assert.ok(now.isVisible, `the focus is not seen on ${now.what}`);
    order.push(now.place);
  }
  assert.ok(order.length >= 20, `${order.length} stops`);
  assert.deepEqual(order, [...order].sort((a, b) => a - b), "the order of the document");

  await page.focus('input[value="4"]');
  await page.keyboard.press("Space");
  assert.equal(await page.isChecked('input[value="4"]'), false);
  await page.click("#rename");
  assert.equal(await page.evaluate(() => document.activeElement.id), "name");
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.id), "rename");
  await page.context().close();
});

check("it fits a telephone, and the theme is remembered", async () => {
  const page = await open({ name: "Telephone", viewport: { width: 360, height: 740 }, colorScheme: "light" });
  await moreEvents(page, 2);
  const [width, visible] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.equal(width, visible, "nothing sticks out");
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.click("#theme");
  const dark = await paper();
  assert.notEqual(dark, light);
  await page.reload();
  assert.equal(await paper(), dark);
  assert.equal(await page.getAttribute("#theme", "aria-pressed"), "true");
  await page.context().close();
});

check("no page has complained", async () => {
  assert.deepEqual(complaints, []);
});

// ---- run

const directory = await mkdtemp(join(tmpdir(), "messaging-browser-"));
let failures = 0;
try {
  const [redisPort, gatewayPort, camerasPort] = [await freePort(), await freePort(), await freePort()];
  redis = await new Program(redisPath, redisPort, [
    ..."--bind 127.0.0.1 --save".split(" "), "", "--appendonly", "yes", "--dir", directory, "--port", `${redisPort}`,
  ]).start();
  const env = { REDIS_URL: `redis://127.0.0.1:${redisPort}` };
  gateway = await new Program(live, gatewayPort, ["--port", `${gatewayPort}`, "--no-cameras"], env).start();
  cameras = await new Program(live, camerasPort, ["--port", `${camerasPort}`], env).start();
  base = `http://127.0.0.1:${gatewayPort}/`;
  browser = await chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox"] });
  for (const { name, run } of checks) {
    const begin = Date.now();
    try {
      await run();
      console.log(`ok      ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failures++;
      console.log(`FAILED  ${name}\n${error.stack}`);
      await picture(name);
      for (const [who, page] of Object.entries(pages)) {
        console.log(`        ${who}: ${await journal(page).catch(() => "")}`.replaceAll("\n", " "));
      }
    }
  }
  await picture("end");
} finally {
  await browser?.close();
  const programs = [...running];
  await Promise.all(programs.map((program) => program.stop("SIGKILL")));
  if (failures > 0) for (const { path, output } of programs) if (output) console.log(`---- ${path}\n${output}`);
  await rm(directory, { recursive: true, force: true });
}
if (failures > 0) {
  console.log(`${failures} of ${checks.length} failed`);
  process.exitCode = 1;
}
