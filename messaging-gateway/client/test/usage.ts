// Compiled with `tsc --strict --noEmit`, never run: the types say what the guide says.

import { Messaging, MessagingError, type Gap, type Position, type State } from "../messaging.js";

interface CameraEvent {
  id: number;
  camera_id: number;
}

const messaging = new Messaging("/subscribe", { getToken: async () => "token", sse: "/events", backoff: { max: 5_000 } });
const shown = (state: State): string => (state.state === "waiting" ? `${state.reason}, again in ${state.delay} ms` : state.state);
const off: () => void = messaging.on("state", (state) => console.log(shown(state)));

const cameras = messaging.subscribe<CameraEvent>({ entity: "CameraEvents", params: { complex_id: 7 }, filters: { camera_id: { in: [1, 2] } }, last: 20 });
cameras.on("event", ({ camera_id }, { offset, isPast }) => console.log(camera_id.toFixed(), offset?.length, isPast));
cameras.on("gap", ({ reason }: Gap) => console.log(reason));
cameras.on("error", (error) => console.log(error.code, error instanceof MessagingError));
const chat = messaging.subscribe({ channel: "chat:lobby", presence: true });
chat.on("joinLeave", ({ joins, leaves }) => console.log(Object.keys(joins), Object.values(leaves)[0]?.user));

export async function use(): Promise<Position | undefined> {
  await cameras.update({ camera_id: 3 });
  await chat.send({ text: "hi" });
  for (const [client, { user }] of Object.entries(await chat.presence())) console.log(client, user);
  for (const { data } of (await cameras.history({ limit: 50 })).events) console.log(data.camera_id);
  off();
  messaging.close();
  return cameras.position;
}

// @ts-expect-error either an entity or a channel
messaging.subscribe({ entity: "A", channel: "a" });
// @ts-expect-error there is no such event
cameras.on("events", () => {});
// @ts-expect-error no such operator
void cameras.update({ camera_id: { above: 1 } });
