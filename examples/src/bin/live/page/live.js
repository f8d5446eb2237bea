// The live wall: cameras, a chat and tasks over one connection to the gateway.
//
// What it expects of the server:
//
// - `/`, `/live.css`, `/live.js`, `/messaging.js` (the client of messaging-gateway), and 204 for `/favicon.ico`, with the policy
//   `default-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self' ws: wss:`.
// - `POST /session` {"name": "Ada"} → {"token": "…", "expires_in_ms": 3600000}. A user is shown by `info.name`, else by `user`.
// - `/subscribe` and `/events`, as docs/gateway.md says, with
//   - `CameraEvents`: `camera.events` and `camera.events.complex:{complex_id}`, resumable; filters camera_id and complex_id,
//     eq and in; {"id": 1, "event_type": "motion_detected|person|vehicle|line_crossed", "camera_id": 1…8, "complex_id": 1…3,
//     "mac_address": "…", "timestamp": "<RFC 3339>", "data": {"confidence": 0.93}}. `id` counts all camera events, one by one:
//     on `camera.events` without filters a hole is an event that was missed.
//   - `Chat`: `chat:{room}`, resumable, with send and presence; one sends {"text": "…", "sent_at": "<RFC 3339>"}.
//   - `TaskUpdates`: `task_updates`, resumable; {"task_id": "…", "title": "…", "status":
//     "queued|in_progress|completed|failed", "message": "…", "progress": 0…100}.
// - `POST /tasks` {"title": "…"} starts a task.

import { Messaging } from "/messaging.js";

const CAMERAS = [1, 2, 3, 4, 5, 6, 7, 8];
/** By how much they matter, least first: a bar of a strip has the colour of what matters most in it. */
const KINDS = { motion_detected: "Motion", vehicle: "Vehicle", person: "Person", line_crossed: "Line crossed" };
const KIND_NAMES = Object.keys(KINDS);
const STATUSES = { queued: "Queued", in_progress: "Running", completed: "Completed", failed: "Failed" };
const FEED = 80;
const MESSAGES = 200;
const TASKS = 20;
const JOURNAL = 30;
/** The strip of a camera: so many bars of so many milliseconds. */
const BARS = 30;
const BAR = 2_000;
/** Who comes back within this time was not away. */
const AWAY = 8_000;

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

/** An element with its attributes, children and texts. Text is never read as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function time(date, format = clock) {
  return element("time", { datetime: date.toISOString() }, format.format(date));
}

const announce = (text) => {
  $("announcer").textContent = text;
};

function showError(id, text) {
  const place = $(id);
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** Storage may be forbidden: then nothing is remembered. */
const stored = (storage) => ({
  get(key) {
    try {
      return globalThis[storage].getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      if (value === null) globalThis[storage].removeItem(key);
      else globalThis[storage].setItem(key, value);
    } catch {
      // It goes without.
    }
  },
});
const device = stored("localStorage");
const tab = stored("sessionStorage");

// ---- the theme

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const showTheme = () => $("theme").setAttribute("aria-pressed", isDark());
const theme = device.get("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
showTheme();
dark.addEventListener("change", showTheme);
$("theme").addEventListener("click", () => {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  device.set("theme", chosen);
  showTheme();
});

// ---- who one is

const pick = (words) => words[Math.floor(Math.random() * words.length)];
const guest = `${pick(["Quiet", "Early", "Amber", "Northern", "Swift", "Silver", "Patient"])} ${pick(["Heron", "Otter", "Marten", "Plover", "Lynx", "Swallow", "Badger"])}`;
let me = tab.get("name") ?? guest;
let isJoined = tab.get("joined") === "yes";

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

const messaging = new Messaging("/subscribe", {
  getToken: async () => (await post("/session", { name: me })).token,
  sse: "/events",
});

// ---- the connection

const journal = $("journal");

function note(kind, text) {
  journal.prepend(element("li", { class: `is-${kind}` }, time(new Date()), element("span", {}, text)));
  while (journal.children.length > JOURNAL) journal.lastElementChild.remove();
}

/** What the time without a connection has cost, once all channels have said so. */
const absence = { since: null, caught: 0, broken: new Set() };
const subscriptions = new Set();

function watch(subscription, name) {
  subscriptions.add(subscription);
  subscription.on("subscribed", ({ isResumed, count }) => {
    if (isResumed) absence.caught += count;
    queueMicrotask(endAbsence);
  });
  subscription.on("gap", ({ reason }) => {
    absence.broken.add(name);
    note("bad", `${name}: ${describeGap(reason)}`);
  });
}

function endAbsence() {
  if (absence.since === null || ![...subscriptions].every(({ isSubscribed }) => isSubscribed)) return;
  const seconds = ((Date.now() - absence.since) / 1000).toFixed(1);
  const caught = absence.caught > 0 ? `caught up on ${plural(absence.caught, "event")}` : "nothing had happened";
  const whole = absence.broken.size > 0 ? `, except for ${[...absence.broken].join(" and ")}` : "";
  note(whole ? "bad" : "good", `Back after ${seconds} s: ${caught}${whole}`);
  showState(`Connected, ${caught}${whole}`);
  setTimeout(() => messaging.state.state === "connected" && showState(connected()), 8_000);
  Object.assign(absence, { since: null, caught: 0 });
  absence.broken.clear();
}

function describeGap(reason) {
  const known = {
    reconnected: "the gateway had lost Redis, something may be missing",
    slow: "this page did not keep up, something is missing",
    removed: "the stream was cut before it was read, something is missing",
    reset: "the stream begins anew",
    too_large: "an event was too large",
    unrecovered: "too much was missed to catch up on all of it",
    disconnected: "what was sent meanwhile is not kept",
  };
  return known[reason] ?? `something may be missing (${reason})`;
}

const showState = (text) => {
  // It is read aloud, so it changes only when there is something to say.
  if ($("state").textContent !== text) $("state").textContent = text;
};
const connected = () => (messaging.state.transport === "sse" ? "Connected, for reading only" : "Connected");

let countdown = null;
let hasConnected = false;
let isSwitching = false;

messaging.on("state", (state) => {
  clearInterval(countdown);
  $("countdown").textContent = "";
  $("link").dataset.state = state.state;
  if (state.state !== "waiting" && document.activeElement === $("retry")) $("main").focus();
  $("retry").hidden = state.state !== "waiting";
  $("switch").textContent = state.state === "closed" && !isSwitching ? "Connect" : "Disconnect";
  if (state.state !== "connected" && hasConnected && !isSwitching) absence.since ??= Date.now();
  switch (state.state) {
    case "connecting":
      if (state.attempt === 0 && !isSwitching) showState("Connecting");
      break;
    case "connected":
      note("good", `Connected as ${me} over ${state.transport === "sse" ? "Server-Sent Events" : "a WebSocket"}`);
      hasConnected = true;
      showState(connected());
      endAbsence();
      break;
    case "waiting": {
      if (state.attempt === 1) note("wait", `Lost: ${state.reason}`);
      showState("Reconnecting");
      const show = () => {
        const left = Math.max(0, state.until - Date.now());
        $("countdown").textContent = left > 900 ? ` in ${Math.ceil(left / 1000)} s` : " now";
      };
      show();
      countdown = setInterval(show, 250);
      break;
    }
    case "closed":
      if (isSwitching) break;
      note(state.code === 1000 ? "wait" : "bad", state.code === 1000 ? "Disconnected" : `Closed: ${state.reason}`);
      showState(state.code === 1000 ? "Disconnected" : `Closed: ${state.reason}`);
  }
  showComposer();
});
messaging.on("error", ({ message, cause }) => note("bad", cause ? `${message}: ${cause.message}` : message));
$("retry").addEventListener("click", () => messaging.connect());
$("switch").addEventListener("click", () => {
  if (messaging.state.state === "closed") messaging.connect();
  else messaging.close();
});

/** Another name is another user: the next connection is theirs. */
function becomeKnownAs(name) {
  if (name === me && messaging.state.state !== "closed") return;
  me = name;
  isSwitching = true;
  messaging.close();
  messaging.connect();
  isSwitching = false;
}

// ---- cameras

const tiles = new Map();
let cameras = null;
let chosen = new Set(CAMERAS);
const seen = { events: 0, missed: 0, twice: 0, last: null, isWhole: true, sinceSummary: 0, latest: null };
let isPaused = false;
/** What makes the rows that wait for the next frame, or for the end of a pause. Hidden pages have no frames. */
let rows = [];
/** How many events there were since the list was drawn. */
let waiting = 0;
let isDue = false;

for (const camera of CAMERAS) {
  const box = element("input", { type: "checkbox", name: "camera", value: camera, checked: true, "aria-labelledby": `camera-${camera}`, "aria-describedby": `latest-${camera}` });
  const name = element("span", { class: "name", id: `camera-${camera}` }, `Camera ${camera}`);
  const latest = element("span", { class: "latest", id: `latest-${camera}` }, "Quiet");
  const bars = Array.from({ length: BARS }, (_, index) => drawing("rect", { x: index * 4, width: 3, y: 27, height: 1 }));
  const strip = drawing("svg", { class: "strip", viewBox: `0 0 ${BARS * 4 - 1} 28`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars);
  const tile = element("label", { class: "tile" }, name, box, strip, latest);
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(camera);
    else chosen.delete(camera);
    changeCameras();
  });
  tile.addEventListener("animationend", () => tile.classList.remove("is-struck"));
  tiles.set(camera, { box, tile, latest, bars, events: [], text: "Quiet" });
  $("tiles").append(tile);
}

function filters() {
  if (chosen.size === CAMERAS.length) return undefined;
  // There is no camera 0: of nothing there is nothing to see.
  return { camera_id: { in: chosen.size > 0 ? [...chosen].sort() : [0] } };
}

async function changeCameras() {
  // Ids have no holes only where nothing is filtered.
  seen.isWhole = false;
  showError("camera-error");
  try {
    await cameras.update(filters());
    seen.last = null;
    seen.isWhole = chosen.size === CAMERAS.length && $("complex").value === "";
  } catch (error) {
    if (cameras.isSubscribed) showError("camera-error", `The cameras could not be changed: ${error.message}`);
  }
}

function subscribeToCameras() {
  if (cameras) {
    subscriptions.delete(cameras);
    cameras.unsubscribe();
  }
  const complex = $("complex").value;
  const subscription = messaging.subscribe({
    entity: "CameraEvents",
    ...(complex && { params: { complex_id: Number(complex) } }),
    filters: filters(),
    last: 20,
  });
  cameras = subscription;
  Object.assign(seen, { last: null, isWhole: !complex && chosen.size === CAMERAS.length });
  watch(subscription, "cameras");
  subscription.on("event", showEvent);
  subscription.on("subscribed", ({ isResumed, count }) => {
    showError("camera-error");
    if (isResumed && count > 0) addRow(() => element("li", { class: "mark" }, `Caught up on ${plural(count, "event")}`));
  });
  subscription.on("gap", ({ reason }) => {
    addRow(() => element("li", { class: "mark is-gap" }, `Gap: ${describeGap(reason)}`));
  });
  subscription.on("error", ({ message, temporary }) => {
    showError("camera-error", `No camera events: ${message}${temporary ? ", trying again" : ""}`);
  });
}

function count({ id }) {
  seen.events++;
  seen.sinceSummary++;
  if (seen.last !== null) {
    if (id <= seen.last) seen.twice++;
    else if (seen.isWhole) seen.missed += id - seen.last - 1;
  }
  seen.last = Math.max(seen.last ?? 0, id);
}

function showEvent(event, { isPast }) {
  count(event);
  const at = new Date(event.timestamp);
  const kind = KINDS[event.event_type] ?? event.event_type;
  const tile = tiles.get(event.camera_id);
  if (tile) {
    tile.events.push({ at: at.getTime(), kind: KIND_NAMES.indexOf(event.event_type) });
    if (tile.events.length > 2_000) tile.events.shift();
    tile.text = `${kind}, ${clock.format(at)}`;
    tile.isStruck = !isPast;
  }
  seen.latest = { kind, camera: event.camera_id };
  waiting++;
  addRow(() => eventRow(event, { at, kind, isPast }));
}

function eventRow(event, { at, kind, isPast }) {
  const sure = Math.round((event.data?.confidence ?? 0) * 100);
  const meter = drawing(
    "svg",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("rect", { class: "all", width: 100, height: 8 }),
    drawing("rect", { class: "part", width: sure, height: 8 }),
  );
  return element(
    "li",
    { class: isPast ? "event" : "event is-new", "data-kind": event.event_type, "data-id": event.id },
    time(at),
    element("span", { class: "kind" }, icon(event.event_type), kind),
    element("span", { class: "camera" }, `Camera ${event.camera_id}`),
    element("span", { class: "complex" }, `Complex ${event.complex_id}`),
    element("span", { class: "sure" }, `${sure} %`, meter),
  );
}

function icon(kind) {
  const use = drawing("use", { href: `#kind-${KINDS[kind] ? kind : "motion_detected"}` });
  return drawing("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, use);
}

function addRow(make) {
  rows.push(make);
  if (rows.length > FEED) rows.shift();
  draw();
}

/** Everything that changes with events is drawn once a frame, however many there were. */
function draw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    $("event-count").textContent = number.format(seen.events);
    for (const [id, value] of [["missed-count", seen.missed], ["twice-count", seen.twice]]) {
      $(id).textContent = number.format(value);
      $(id).classList.toggle("is-bad", value > 0);
    }
    for (const tile of tiles.values()) {
      if (tile.latest.textContent !== tile.text) tile.latest.textContent = tile.text;
      if (tile.isStruck) tile.tile.classList.add("is-struck");
      tile.isStruck = false;
    }
    drawStrips();
    $("pause").textContent = !isPaused ? "Pause the list" : waiting > 0 ? `Go on with ${number.format(waiting)} new` : "Go on";
    if (isPaused || rows.length === 0) return;
    $("feed-empty").hidden = true;
    const feed = $("feed");
    const scroller = feed.parentElement;
    const [height, top] = [scroller.scrollHeight, scroller.scrollTop];
    feed.prepend(...rows.reverse().map((make) => make()));
    rows = [];
    waiting = 0;
    while (feed.children.length > FEED) feed.lastElementChild.remove();
    // Whoever has scrolled down to read stays where they are.
    if (top > 0) scroller.scrollTop = top + scroller.scrollHeight - height;
  });
}

function drawStrips() {
  const end = Math.ceil(Date.now() / BAR) * BAR;
  const begin = end - BARS * BAR;
  for (const { events, bars } of tiles.values()) {
    while (events.length > 0 && events[0].at < begin) events.shift();
    const drawn = bars.map(() => ({ count: 0, kind: -1 }));
    for (const { at, kind } of events) {
      const bar = drawn[Math.min(BARS - 1, Math.max(0, Math.floor((at - begin) / BAR)))];
      bar.count++;
      bar.kind = Math.max(bar.kind, kind);
    }
    drawn.forEach(({ count, kind }, index) => {
      const bar = bars[index];
      // A single event is seen from afar, and many do not leave the strip.
      const height = count === 0 ? 1 : Math.min(28, 5 + 8 * Math.log2(1 + count));
      bar.setAttribute("height", height);
      bar.setAttribute("y", 28 - height);
      if (count === 0) delete bar.dataset.kind;
      else bar.dataset.kind = KIND_NAMES[Math.max(0, kind)];
    });
  }
}

$("complex").addEventListener("change", () => {
  rows = [];
  waiting = 0;
  $("feed").replaceChildren();
  $("feed-empty").hidden = false;
  for (const tile of tiles.values()) Object.assign(tile, { events: [], text: "Quiet" });
  subscribeToCameras();
  draw();
});
function chooseAll(isChosen) {
  chosen = new Set(isChosen ? CAMERAS : []);
  for (const { box } of tiles.values()) box.checked = isChosen;
  changeCameras();
}
$("all-cameras").addEventListener("click", () => chooseAll(true));
$("no-cameras").addEventListener("click", () => chooseAll(false));
$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", isPaused);
  draw();
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
setInterval(() => document.hidden || draw(), BAR);
// Events come faster than anybody wants to hear them.
setInterval(() => {
  if (seen.sinceSummary > 0 && !isPaused) {
    const { kind, camera } = seen.latest;
    announce(`${plural(seen.sinceSummary, "camera event")} in the last half minute, the latest: ${kind} at camera ${camera}`);
  }
  seen.sinceSummary = 0;
}, 30_000);

// ---- the chat

let chat = null;
const members = new Map();
/** Who has just gone: a page that is loaded again goes and comes. */
const leaving = new Map();
let lastMessage = null;

const nameOf = (member) => member?.info?.name ?? member?.user ?? "Somebody";

function joinRoom() {
  leaveRoom();
  const room = $("room").value;
  const subscription = messaging.subscribe({ entity: "Chat", params: { room }, last: 50, presence: true });
  chat = subscription;
  // Who was here before is not told as having come.
  let isNew = true;
  watch(subscription, "chat");
  subscription.on("event", showMessage);
  subscription.on("gap", ({ reason }) => addNotice(`Messages may be missing: ${describeGap(reason)}`, "is-gap"));
  subscription.on("joinLeave", ({ joins, leaves }) => {
    if (isNew) return;
    for (const [client, member] of Object.entries(leaves)) goes(client, member);
    for (const [client, member] of Object.entries(joins)) comes(client, member);
    showMembers();
  });
  subscription.on("subscribed", async () => {
    showError("chat-error");
    showComposer();
    try {
      const present = await subscription.presence();
      const gone = [...members].filter(([client]) => !(client in present));
      for (const [client, member] of Object.entries(present)) {
        if (!isNew) comes(client, member);
        members.set(client, nameOf(member));
      }
      isNew = false;
      for (const [client, name] of gone) goes(client, { user: name });
      showMembers();
    } catch {
      // Over Server-Sent Events one cannot ask. Who comes and goes from now on is told all the same.
      isNew = false;
    }
  });
  subscription.on("error", ({ message, temporary }) => {
    showError("chat-error", `The room cannot be entered: ${message}${temporary ? ", trying again" : ""}`);
  });
  $("chat-empty").textContent = "Nobody has said anything yet.";
  showComposer();
}

function leaveRoom() {
  if (chat) {
    subscriptions.delete(chat);
    chat.unsubscribe();
  }
  chat = null;
  lastMessage = null;
  members.clear();
  for (const timer of leaving.values()) clearTimeout(timer);
  leaving.clear();
  $("messages").replaceChildren();
  $("chat-empty").hidden = false;
  $("chat-empty").textContent = "Join to read along and to be seen.";
  showMembers();
  showComposer();
}

const isHere = (name) => [...members.values()].includes(name);

function comes(client, member) {
  const name = nameOf(member);
  const isNew = !isHere(name) && !leaving.has(name);
  members.set(client, name);
  clearTimeout(leaving.get(name));
  leaving.delete(name);
  if (isNew && client !== messaging.client && name !== me) addNotice(`${name} has joined`);
}

function goes(client, member) {
  if (!members.delete(client)) return;
  const name = nameOf(member);
  if (isHere(name) || name === me) return;
  clearTimeout(leaving.get(name));
  leaving.set(name, setTimeout(() => {
    leaving.delete(name);
    if (!isHere(name)) addNotice(`${name} has left`);
  }, AWAY));
}

function showMembers() {
  const times = new Map();
  for (const name of members.values()) times.set(name, (times.get(name) ?? 0) + 1);
  const names = [...times].sort(([a], [b]) => (b === me) - (a === me) || a.localeCompare(b));
  const list = names.slice(0, 12).map(([name, count]) => {
    const item = element("li", {}, name === me ? `${name} (you)` : name);
    if (count > 1) item.append(" ", element("span", { class: "times" }, `×${count}`));
    return item;
  });
  if (names.length > 12) list.push(element("li", {}, `and ${names.length - 12} more`));
  $("members").replaceChildren(...list);
  $("here").hidden = names.length === 0;
}

function addToLog(item) {
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const messages = $("messages");
  messages.append(item);
  while (messages.children.length > MESSAGES) messages.firstElementChild.remove();
  $("chat-empty").hidden = true;
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function addNotice(text, kind = "") {
  lastMessage = null;
  addToLog(element("li", { class: `notice ${kind}`.trim() }, text));
}

function showMessage({ sender, data }, { isPast }) {
  const name = nameOf(sender);
  // What is past and does not say when it was has no time.
  const sent = new Date(data?.sent_at ?? NaN);
  const at = !Number.isNaN(sent.getTime()) ? sent : isPast ? null : new Date();
  const isMore = lastMessage?.name === name && (!at || !lastMessage.at || at - lastMessage.at < 120_000);
  lastMessage = { name, at };
  const isMine = name === me;
  const classes = ["message", isMore && "is-more", isMine && "is-mine"].filter(Boolean).join(" ");
  addToLog(
    element("li", { class: classes }, element("span", { class: "who" }, name), at ? time(at, minutes) : element("span"), element("p", {}, String(data?.text ?? ""))),
  );
}

function showComposer() {
  const canSend = isJoined && messaging.state.transport !== "sse";
  $("join").hidden = isJoined;
  $("composer").hidden = !isJoined;
  $("me").textContent = me;
  $("text").disabled = $("composer").elements[1].disabled = !canSend;
  $("text").placeholder = canSend ? "Write a message" : "Sending takes a WebSocket, which does not get through";
}

$("name").value = me;
$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  const wasIn = isJoined || chat !== null;
  isJoined = true;
  tab.set("name", name);
  tab.set("joined", "yes");
  becomeKnownAs(name);
  if (wasIn) showComposer();
  else joinRoom();
  $("text").focus();
});
$("join").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || chat === null) return;
  isJoined = true;
  showComposer();
  $("rename").focus();
});
$("rename").addEventListener("click", () => {
  isJoined = false;
  showComposer();
  $("name").value = me;
  $("name").focus();
  $("name").select();
});
$("leave").addEventListener("click", () => {
  isJoined = false;
  tab.set("joined", null);
  leaveRoom();
  $("name").focus();
});
$("room").addEventListener("change", () => isJoined && joinRoom());
$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("text");
  const text = field.value.trim();
  if (!text || !chat) return;
  field.value = "";
  showError("chat-error");
  try {
    await chat.send({ text, sent_at: new Date().toISOString() });
  } catch (error) {
    // What was written is not lost, unless something else has been begun meanwhile.
    if (!field.value) field.value = text;
    showError("chat-error", error.notSent ? `Not sent: ${error.message}` : `Perhaps not sent: ${error.message}`);
  }
});
$("composer").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === $("text")) $("text").value = "";
});

// ---- tasks

const tasks = new Map();
const updates = messaging.subscribe({ entity: "TaskUpdates", last: 100 });
watch(updates, "tasks");
updates.on("event", (task, { isPast }) => showTask(task, isPast));
updates.on("subscribed", () => showError("task-error"));
updates.on("error", ({ message, temporary }) => {
  showError("task-error", `No news of tasks: ${message}${temporary ? ", trying again" : ""}`);
});

function showTask({ task_id: id, title, status, message, progress }, isPast) {
  let task = tasks.get(id);
  if (!task) {
    task = {
      what: element("span", { class: "what", id: `task-${tasks.size}-${Date.now()}` }),
      how: element("span", { class: "how" }),
      bar: element("progress", { max: 100, value: 0 }),
      note: element("span", { class: "note" }),
      percent: element("span", { class: "percent" }),
    };
    task.bar.setAttribute("aria-labelledby", task.what.id);
    task.item = element("li", { class: "task" }, task.what, task.how, task.bar, task.note, task.percent);
    tasks.set(id, task);
    $("task-list").prepend(task.item);
    $("task-empty").hidden = true;
  }
  const isOver = status === "completed" || status === "failed";
  if (isOver && task.status !== status && !isPast) announce(`${title}: ${STATUSES[status]}`);
  task.status = status;
  task.item.dataset.status = status;
  task.what.textContent = title || id;
  task.how.textContent = STATUSES[status] ?? status;
  task.bar.value = progress;
  task.note.textContent = message ?? "";
  task.percent.textContent = `${Math.round(progress)} %`;
  while (tasks.size > TASKS) {
    const [oldest, { item }] = tasks.entries().next().value;
    tasks.delete(oldest);
    item.remove();
  }
}

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("task-title");
  const button = $("start").querySelector("button");
  const title = field.value.trim() || field.placeholder;
  button.disabled = true;
  showError("task-error");
  try {
    await post("/tasks", { title });
    field.value = "";
  } catch (error) {
    showError("task-error", `The task could not be started: ${error.message}`);
  } finally {
    button.disabled = false;
    field.focus();
  }
});

// ---- go

subscribeToCameras();
if (isJoined) joinRoom();
showComposer();
