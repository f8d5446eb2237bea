// What the unmodified client of Centrifugo in JavaScript does with the gateway, the same in Node.js and in a browser. Each
// function has a channel of its own; what is beyond a client is done by `control`, which runs the gateway.

const PATIENCE = 30_000;
/** How often things are done that may go wrong only now and then. */
const LOOPS = 1_000;

/** Runs all, in order; `told` hears of each. */
export async function run({ Centrifuge, UnauthorizedError, WebSocket, endpoint, control, told }) {
  const lab = { Centrifuge, UnauthorizedError, WebSocket, endpoint, control, clients: [] };
  for (const test of [
    connects,
    pingsAreAnswered,
    publishesAndHears,
    seesWhoIsThere,
    readsHistory,
    callsAndSends,
    isRefused,
    connectsAndDisconnects,
    subscribesAndUnsubscribes,
    unsubscribesBeforeTheReply,
    hasManySubscriptions,
    recoversAfterACut,
    recoversAfterARestart,
    hearsThatHistoryIsGone,
    refreshesItsToken,
    getsAnotherToken,
    refreshesSubscriptionTokens,
    losesItsSubscriptionToken,
    obeysTheServer,
    doesWithoutWhatIsNotOffered,
  ]) {
    await test(lab, test.name);
    for (const client of lab.clients.splice(0)) client.disconnect();
    told(test.name);
  }
}

function equal(actual, expected, what) {
  const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (is !== should) throw new Error(`${what}: ${is} instead of ${should}`);
}

function assert(holds, what) {
  if (!holds) throw new Error(what);
}

/** What a promise comes to, which must not take for ever. */
function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it takes too long: ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Collects events, which can be waited for in order. */
class Heard {
  constructor(source, ...names) {
    this.all = [];
    this.next = 0;
    this.waiting = [];
    for (const name of names) {
      source.on(name, (context) => {
        this.all.push({ name, ...context });
        this.waiting.splice(0).forEach((wake) => wake());
      });
    }
  }

  /** The next of this name, past others. */
  async of(name) {
    const finding = async () => {
      for (;;) {
        while (this.next < this.all.length) {
          const event = this.all[this.next++];
          if (event.name === name) return event;
        }
        await new Promise((wake) => this.waiting.push(wake));
      }
    };
    return soon(finding(), `${name} after ${JSON.stringify(this.all.slice(-5))}`);
  }
}

async function token(lab, claims) {
  return (await lab.control({ do: 'token', claims })).token;
}

function make(lab, options) {
  const client = new lab.Centrifuge(lab.endpoint, {
    websocket: lab.WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    timeout: PATIENCE,
    ...options,
  });
  lab.clients.push(client);
  return client;
}

async function connected(lab, user, options = {}) {
  const client = make(lab, { token: await token(lab, { sub: user, info: { name: user } }), ...options });
  client.connect();
  await soon(client.ready(), 'connecting');
  return client;
}

/** A subscription that has begun, and what is heard of it. */
async function subscribed(client, channel, options) {
  const subscription = client.newSubscription(channel, {
    minResubscribeDelay: 20,
    maxResubscribeDelay: 200,
    ...options,
  });
  const heard = new Heard(
    subscription, 'subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error',
  );
  subscription.subscribe();
  const begun = await heard.of('subscribed');
  return { subscription, heard, begun };
}

async function numbers(heard, count) {
  const come = [];
  while (come.length < count) come.push((await heard.of('publication')).data);
  return come;
}

const upTo = (count, first = 0) => Array.from({ length: count }, (_, number) => first + number);

async function connects(lab) {
  const client = make(lab, { token: await token(lab, { sub: 'ada' }), data: { app: 'test' }, name: 'test' });
  const heard = new Heard(client, 'connecting', 'connected', 'disconnected', 'error');
  // Together with the subscriptions, in one frame, before there is any answer.
  const subscriptions = upTo(5).map((number) => client.newSubscription(`camera.events.complex:${number}`));
  subscriptions.forEach((subscription) => subscription.subscribe());
  client.connect();
  const { client: id, transport } = await heard.of('connected');
  assert(id.length > 10, id);
  equal(transport, 'websocket', 'the transport');
  await soon(Promise.all(subscriptions.map((subscription) => subscription.ready())), 'all begin');
  client.disconnect();
  equal((await heard.of('disconnected')).code, 0, 'by itself');
  equal(heard.all.filter(({ name }) => name === 'error').length, 0, 'errors');
}

async function pingsAreAnswered(lab) {
  let answered;
  const twice = new Promise((resolve) => (answered = resolve));
  let pongs = 0;
  class Counting extends lab.WebSocket {
    send(text) {
      super.send(text);
      if (text === '{}' && ++pongs === 2) answered();
    }
  }
  const client = await connected(lab, 'ada', { websocket: Counting });
  const heard = new Heard(client, 'connecting', 'disconnected');
  await soon(twice, 'pings');
  equal((await client.rpc('echo', 1)).data, 1, 'it is still there');
  equal(heard.all, [], 'nothing has happened');
}

async function publishesAndHears(lab, name) {
  const channel = `kept.${name}`;
  const [ada, bob] = [await connected(lab, 'ada'), await connected(lab, 'bob')];
  const here = await subscribed(ada, channel);
  const there = await subscribed(bob, channel);
  equal([here.begun.recoverable, here.begun.positioned], [true, true], 'it can be recovered');
  await lab.control({ do: 'publish', channel, count: 3 });
  equal(await numbers(here.heard, 3), [0, 1, 2], 'what the program publishes');
  equal(await numbers(there.heard, 3), [0, 1, 2], 'what the program publishes');
  await here.subscription.publish({ text: 'höhö' });
  const { data, info, offset } = await there.heard.of('publication');
  equal(data, { text: 'höhö' }, 'what a client publishes');
  equal([info.user, info.connInfo], ['ada', { name: 'ada' }], 'whose it is');
  equal(offset, here.begun.streamPosition.offset + 4, 'its offset');
  // The same from the connection, not the subscription.
  await ada.publish(channel, 5);
  equal((await there.heard.of('publication')).data, 5, 'what a client publishes');
}

async function seesWhoIsThere(lab, name) {
  const channel = `kept.${name}`;
  const [ada, bob] = [await connected(lab, 'ada'), await connected(lab, 'bob')];
  const here = await subscribed(ada, channel, { joinLeave: true });
  const there = await subscribed(bob, channel);
  let join;
  do join = await here.heard.of('join');
  while (join.info.user !== 'bob');
  equal(join.info.connInfo, { name: 'bob' }, 'who he is');
  const { clients } = await here.subscription.presence();
  equal(Object.values(clients).map(({ user }) => user).sort(), ['ada', 'bob'], 'who is there');
  equal(clients[join.info.client].user, 'bob', 'by connection');
  const stats = await here.subscription.presenceStats();
  equal([stats.numClients, stats.numUsers], [2, 2], 'how many');
  there.subscription.unsubscribe();
  equal((await here.heard.of('leave')).info.user, 'bob', 'who has gone');
}

async function readsHistory(lab, name) {
  const channel = `kept.${name}`;
  const client = await connected(lab, 'ada');
  const { subscription, heard, begun } = await subscribed(client, channel);
  await lab.control({ do: 'publish', channel, count: 10 });
  await numbers(heard, 10);
  const read = async (options) => (await subscription.history(options)).publications.map(({ data }) => data);
  equal(await read({ limit: 3 }), [0, 1, 2], 'forward');
  equal(await read({ limit: 3, reverse: true }), [9, 8, 7], 'backward');
  equal(await read({ limit: -1 }), upTo(10), 'all');
  const { epoch, offset, publications } = await subscription.history({ limit: 0 });
  // Offsets are those of the stream, which other channels of the template have part in.
  const { offset: before } = begun.streamPosition;
  equal([offset, publications], [before + 10, []], 'only where it ends');
  const since = { epoch, offset: before + 4 };
  equal(await read({ limit: 2, since }), [4, 5], 'from a place');
  equal(await read({ limit: 2, since, reverse: true }), [2, 1], 'backward from a place');
  // From a place that it has been told before, as if it had been away.
  const again = await connected(lab, 'ada');
  const resumed = await subscribed(again, channel, { since: { epoch, offset: before + 7 } });
  equal([resumed.begun.wasRecovering, resumed.begun.recovered], [true, true], 'it is recovered');
  equal(await numbers(resumed.heard, 3), [7, 8, 9], 'what came after it');
}

async function callsAndSends(lab, name) {
  const client = await connected(lab, 'ada');
  equal((await client.rpc('echo', { a: [1, 'ü'] })).data, { a: [1, 'ü'] }, 'what it returns');
  const error = await client.rpc('fail', {}).catch((error) => error);
  equal([error.code, error.message, error.temporary], [1000, 'it is too much', true], 'an error of the program');
  equal((await client.rpc('nobody', {}).catch((error) => error)).code, 104, 'there is no such method');
  await client.send({ sent: name });
  await lab.control({ do: 'sent', expected: { sent: name } });
}

async function isRefused(lab, name) {
  const client = await connected(lab, 'ada');
  for (const channel of ['kept.secret', 'nobody.declares.it', 'auditlog:eve']) {
    const subscription = client.newSubscription(channel);
    const heard = new Heard(subscription, 'unsubscribed');
    subscription.subscribe();
    equal((await heard.of('unsubscribed')).code, 103, channel);
    equal(subscription.state, 'unsubscribed', channel);
  }
  const code = (promise) => promise.then(() => 0, (error) => error.code);
  equal(await code(client.publish(`kept.${name}`, 1)), 103, 'publishing without a subscription');
  equal(await code(client.presence(`kept.${name}`)), 103, 'presence without a subscription');
  const { subscription } = await subscribed(client, 'camera.events');
  equal(await code(subscription.history({ limit: 1 })), 108, 'what is not kept');
  equal(await code(subscription.presence()), 108, 'where nobody is seen');
  equal(await code(subscription.publish(1)), 108, 'what only the program publishes');
}

async function connectsAndDisconnects(lab) {
  const client = make(lab, { token: await token(lab, { sub: 'ada' }) });
  for (let loop = 0; loop < LOOPS; loop++) {
    client.connect();
    await soon(client.ready(), `connecting the ${loop}th time`);
    client.disconnect();
  }
  await lab.control({ do: 'alone' });
}

async function subscribesAndUnsubscribes(lab, name) {
  const channel = `kept.${name}`;
  const client = await connected(lab, 'ada');
  const subscription = client.newSubscription(channel);
  const heard = new Heard(subscription, 'publication');
  for (let loop = 0; loop < LOOPS; loop++) {
    subscription.subscribe();
    await soon(subscription.ready(), `subscribing the ${loop}th time`);
    subscription.unsubscribe();
  }
  subscription.subscribe();
  await soon(subscription.ready(), 'subscribing');
  await lab.control({ do: 'publish', channel, count: 3 });
  equal(await numbers(heard, 3), [0, 1, 2], 'it goes on');
}

async function unsubscribesBeforeTheReply(lab, name) {
  const channel = `kept.${name}`;
  const client = await connected(lab, 'ada');
  const subscription = client.newSubscription(channel);
  const heard = new Heard(subscription, 'publication', 'subscribed', 'error');
  for (let loop = 0; loop < LOOPS; loop++) {
    subscription.subscribe();
    // Now and then after the command has left.
    if (loop % 3 === 0) await Promise.resolve();
    subscription.unsubscribe();
  }
  equal((await client.rpc('echo', 1)).data, 1, 'all of them have been answered');
  await lab.control({ do: 'publish', channel, count: 3 });
  equal((await client.rpc('echo', 2)).data, 2, 'the connection lives');
  equal(heard.all, [], 'who has unsubscribed hears nothing');
  subscription.subscribe();
  await soon(subscription.ready(), 'subscribing');
  await lab.control({ do: 'publish', channel, count: 1 });
  equal((await heard.of('publication')).data, 0, 'it goes on');
}

async function hasManySubscriptions(lab, name) {
  const client = await connected(lab, 'ada');
  const all = await Promise.all(upTo(500).map((number) => subscribed(client, `kept.${name}-${number}`)));
  await lab.control({ do: 'publish', channels: all.map(({ subscription }) => subscription.channel), count: 2 });
  for (const { heard } of all) equal(await numbers(heard, 2), [0, 1], 'each hears what is its own');
}

/** Something happens to the connection, while more is published. */
async function comesBack(lab, name, options, happens) {
  const channel = `kept.${name}`;
  const client = await connected(lab, 'ada', options);
  const { subscription, heard } = await subscribed(client, channel);
  await lab.control({ do: 'publish', channel, count: 5 });
  equal(await numbers(heard, 5), upTo(5), 'before');
  await happens(channel);
  await heard.of('subscribing');
  await lab.control({ do: 'publish', channel, first: 5, count: 50 });
  return { client, channel, subscription, heard };
}

async function recovers(lab, name, down, up) {
  const { channel, heard } = await comesBack(lab, name, {}, () => lab.control({ do: down }));
  await lab.control({ do: up });
  const again = await heard.of('subscribed');
  equal([again.wasRecovering, again.recovered], [true, true], 'it is recovered');
  await lab.control({ do: 'publish', channel, first: 55, count: 5 });
  equal(await numbers(heard, 55), upTo(55, 5), 'everything comes once and in order');
}

async function recoversAfterACut(lab, name) {
  await recovers(lab, name, 'refuse', 'heal');
}

async function recoversAfterARestart(lab, name) {
  await recovers(lab, name, 'stop', 'start');
}

async function hearsThatHistoryIsGone(lab, name) {
  const { channel, heard } = await comesBack(lab, name, {}, () => lab.control({ do: 'stop' }));
  await lab.control({ do: 'forget' });
  await lab.control({ do: 'start' });
  const again = await heard.of('subscribed');
  equal([again.wasRecovering, again.recovered], [true, false], 'it is not recovered, and that is said');
  await lab.control({ do: 'publish', channel, first: 100, count: 2 });
  equal(await numbers(heard, 2), [100, 101], 'it goes on');
}

async function refreshesItsToken(lab) {
  let asked = 0;
  let twice;
  const refreshed = new Promise((resolve) => (twice = resolve));
  const getToken = () => {
    if (++asked === 2) twice();
    return token(lab, { sub: 'ada', exp: asked < 2 ? 1 : 600 });
  };
  const client = make(lab, { token: await token(lab, { sub: 'ada', exp: 1 }), getToken });
  const heard = new Heard(client, 'connected', 'connecting', 'disconnected', 'error');
  client.connect();
  const { client: id } = await heard.of('connected');
  await soon(refreshed, 'it asks for another token twice');
  equal((await client.rpc('echo', 1)).data, 1, 'it goes on');
  equal((await client.rpc('client', null)).data, id, 'it is the same connection');
}

async function getsAnotherToken(lab) {
  // One that has ended is replaced, also after it could not be had at first; one that is wrong is the end.
  let asked = 0;
  const getToken = async () => {
    if (++asked === 1) throw new Error('not now');
    return token(lab, { sub: 'ada' });
  };
  const client = make(lab, { token: await token(lab, { sub: 'ada', exp: -60 }), getToken });
  const heard = new Heard(client, 'connected', 'disconnected', 'error');
  client.connect();
  const error = await heard.of('error');
  equal([error.type, error.error.code], ['connect', 109], 'it has ended');
  equal((await heard.of('error')).type, 'connectToken', 'there is none at first');
  await heard.of('connected');
  for (const bad of ['no token', await token(lab, { sub: 'ada', key: 'another' })]) {
    const refused = make(lab, { token: bad });
    const heard = new Heard(refused, 'disconnected');
    refused.connect();
    equal((await heard.of('disconnected')).code, 3500, 'it is wrong');
  }
  const nobody = make(lab, { getToken: async () => { throw new lab.UnauthorizedError(''); } });
  const gone = new Heard(nobody, 'disconnected');
  nobody.connect();
  equal((await gone.of('disconnected')).code, 1, 'it may not');
}

async function refreshesSubscriptionTokens(lab) {
  const channel = 'kept.secret';
  const client = await connected(lab, 'ada');
  let asked = 0;
  let thrice;
  const refreshed = new Promise((resolve) => (thrice = resolve));
  const getToken = async () => {
    asked += 1;
    if (asked === 1) throw new Error('not now');
    if (asked === 4) thrice();
    return token(lab, { sub: 'ada', channel, exp: asked < 4 ? 1 : 600, info: { seat: 7 } });
  };
  const expired = await token(lab, { sub: 'ada', channel, exp: -60 });
  const { subscription, heard } = await subscribed(client, channel, { token: expired, getToken });
  const errors = heard.all.filter(({ name }) => name === 'error');
  equal(errors.map(({ error }) => error.code), [109, 8], 'it has ended, and there is no other at first');
  await soon(refreshed, 'it asks for others');
  await lab.control({ do: 'publish', channel, count: 1 });
  equal((await heard.of('publication')).data, 0, 'it goes on');
  const { clients } = await subscription.presence().catch((error) => ({ clients: error.code }));
  equal(clients, 103, 'a token allows to subscribe, and nothing else');
  equal(heard.all.filter(({ name }) => name === 'unsubscribed'), [], 'all the time');
}

async function losesItsSubscriptionToken(lab) {
  const channel = 'kept.secret';
  const client = await connected(lab, 'ada');
  const ends = await token(lab, { sub: 'ada', channel, exp: 1 });
  // Nobody gives it another one.
  const { heard } = await subscribed(client, channel, {
    token: ends,
    getToken: async () => { throw new lab.UnauthorizedError(''); },
  });
  equal((await heard.of('unsubscribed')).code, 1, 'it may not any more');
  const wrong = await connected(lab, 'bob');
  const subscription = wrong.newSubscription(channel, { token: 'no token' });
  const refused = new Heard(subscription, 'unsubscribed');
  subscription.subscribe();
  equal((await refused.of('unsubscribed')).code, 103, 'it is wrong');
  const another = await connected(lab, 'eve');
  const thief = another.newSubscription(channel, { token: await token(lab, { sub: 'ada', channel }) });
  const gone = new Heard(another, 'disconnected');
  thief.subscribe();
  equal((await gone.of('disconnected')).code, 3500, 'it is somebody else’s');
}

async function obeysTheServer(lab, name) {
  const channel = `kept.${name}`;
  const client = await connected(lab, name);
  const connection = new Heard(client, 'connecting', 'connected', 'disconnected');
  const { subscription, heard } = await subscribed(client, channel);
  await lab.control({ do: 'unsubscribe', user: name, channel, code: 2500 });
  equal((await heard.of('subscribing')).code, 2500, 'it subscribes again');
  equal((await heard.of('subscribed')).recovered, true, 'and has missed nothing');
  await lab.control({ do: 'unsubscribe', user: name, channel, code: 2000 });
  equal((await heard.of('unsubscribed')).code, 2000, 'it does not subscribe again');
  subscription.subscribe();
  await heard.of('subscribed');
  await lab.control({ do: 'disconnect', user: name, code: 3011 });
  equal((await connection.of('connecting')).code, 3011, 'it comes back');
  await connection.of('connected');
  await heard.of('subscribed');
  await lab.control({ do: 'disconnect', user: name, code: 3503 });
  equal((await connection.of('disconnected')).code, 3503, 'it does not come back');
}

async function doesWithoutWhatIsNotOffered(lab, name) {
  const channel = `kept.${name}`;
  const client = await connected(lab, 'ada');
  const { heard, subscription } = await subscribed(client, channel, { delta: 'fossil' });
  await lab.control({ do: 'publish', channel, count: 3 });
  equal(await numbers(heard, 3), [0, 1, 2], 'whole, where differences are not offered');
  subscription.unsubscribe();
  const filtered = client.newSubscription(`${channel}-other`, {
    tagsFilter: { key: 'k', cmp: 'eq', val: 'v' },
  });
  const refused = new Heard(filtered, 'unsubscribed');
  filtered.subscribe();
  equal((await refused.of('unsubscribed')).code, 107, 'filters by tags are refused');
}
