// `server.js <port of Redis>`: Socket.IO with its Redis adapter. Clients ask for the one room and are sent what is published
// to it. Says on standard output that it listens, and on which port, as the other sides do.
"use strict";

const { createServer } = require("node:http");
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const ROOM = "orders.created";

async function main() {
  const publisher = createClient({ url: `redis://127.0.0.1:${process.argv[2]}` });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);

  const server = createServer();
  const io = new Server(server, {
    adapter: createAdapter(publisher, subscriber),
    transports: ["websocket"],
    perMessageDeflate: false,
    serveClient: false,
  });
  // The documentation's advice for memory: the request that began a connection is of no use later.
  io.engine.on("connection", (socket) => {
    socket.request = null;
  });
  io.on("connection", (socket) => {
    socket.on("subscribe", async (done) => {
      await socket.join(ROOM);
      done();
    });
  });

  // Answered after what the adapter has subscribed to.
  await subscriber.subscribe("ready", () => {});
  server.listen(0, "127.0.0.1", () => {
    console.log(JSON.stringify({ Ready: { port: server.address().port } }));
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
