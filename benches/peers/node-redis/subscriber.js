// `subscriber.js <port of Redis>`: node-redis handles orders up to the last one, and says on standard output how it went, as the
// other sides do.
"use strict";

const { createClient } = require("redis");

const CHANNEL = "orders.created";
const LAST = 9_999_999_999;

const port = Number(process.argv[2]);
let handled = 0;
let start;

function reading() {
  return { at: process.hrtime.bigint(), cpu: process.cpuUsage() };
}

function say(said) {
  process.stdout.write(JSON.stringify(said) + "\n");
}

function report(end) {
  const micros = (usage) => usage.user + usage.system;
  return {
    count: handled,
    seconds: Number(end.at - start.at) / 1e9,
    cpu_seconds: (micros(end.cpu) - micros(start.cpu)) / 1e6,
    peak_mib: process.resourceUsage().maxRSS / 1024,
  };
}

async function main() {
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  client.on("error", fail);
  await client.connect();
  await client.subscribe(CHANNEL, (message) => {
    const order = JSON.parse(message);
    if (order.id === LAST) {
      say({ Done: report(reading()) });
      // Not while it decodes.
      setImmediate(() => client.destroy());
      return;
    }
    handled += 1;
    if (handled === 1) {
      start = reading();
    }
  });
  say({ Ready: { port } });
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
