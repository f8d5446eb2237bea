"""What the unmodified client of Centrifugo in Python does with the gateway. It has no `send`; the rest is as in JavaScript."""

import asyncio
import json
import sys
import urllib.request

from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    DeltaType,
    StreamPosition,
    SubscriptionEventHandler,
    UnauthorizedError,
)

PATIENCE = 30
LOOPS = 1_000

address = sys.argv[1]
# No proxy of the environment comes between.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
clients = []


def ask(what):
    with http.open(f"http://{address}/control", json.dumps(what).encode(), PATIENCE) as answer:
        return json.load(answer)


async def control(what):
    return await asyncio.to_thread(ask, what)


async def token(**claims):
    return (await control({"do": "token", "claims": claims}))["token"]


class Heard:
    """Collects events, which can be waited for in order."""

    def __init__(self):
        self.all = []
        self.next = 0
        self.more = asyncio.Event()

    def note(self, name, context):
        self.all.append((name, context))
        self.more.set()

    async def of(self, name):
        async def find():
            while True:
                while self.next < len(self.all):
                    self.next += 1
                    if self.all[self.next - 1][0] == name:
                        return self.all[self.next - 1][1]
                self.more.clear()
                await self.more.wait()

        try:
            return await asyncio.wait_for(find(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"no {name} after {self.all[-5:]}") from None

    def names(self):
        return [name for name, _ in self.all]


def handler(base, heard, names):
    def note(name):
        async def heard_of(_, context):
            heard.note(name, context)

        return heard_of

    return type("Handler", (base,), {f"on_{name}": note(name) for name in names})()


def make(endpoint, heard=None, **options):
    names = ["connecting", "connected", "disconnected", "error"]
    events = handler(ClientEventHandler, heard or Heard(), names)
    client = Client(
        endpoint, events=events, timeout=PATIENCE, min_reconnect_delay=0.02, max_reconnect_delay=0.2, **options
    )
    clients.append(client)
    return client


async def connected(endpoint, user, heard=None):
    client = make(endpoint, heard, token=await token(sub=user, info={"name": user}))
    await client.connect()
    await client.ready()
    return client


def subscription_of(client, channel, heard, **options):
    names = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"]
    events = handler(SubscriptionEventHandler, heard, names)
    return client.new_subscription(
        channel, events=events, min_resubscribe_delay=0.02, max_resubscribe_delay=0.2, **options
    )


async def subscribed(client, channel, **options):
    heard = Heard()
    subscription = subscription_of(client, channel, heard, **options)
    await subscription.subscribe()
    begun = await heard.of("subscribed")
    return subscription, heard, begun


async def numbers(heard, count):
    return [(await heard.of("publication")).pub.data for _ in range(count)]


async def publish(channel, count, first=0):
    await control({"do": "publish", "channel": channel, "first": first, "count": count})


async def code_of(doing):
    try:
        await doing
    except CentrifugeError as error:
        return error.code
    return 0


async def publishes_and_hears(endpoint, name):
    channel = f"kept.{name}"
    ada, bob = await connected(endpoint, "ada"), await connected(endpoint, "bob")
    here, heard_here, begun = await subscribed(ada, channel)
    _, heard_there, _ = await subscribed(bob, channel)
    assert begun.recoverable and begun.positioned, begun
    await publish(channel, 3)
    assert await numbers(heard_here, 3) == [0, 1, 2]
    assert await numbers(heard_there, 3) == [0, 1, 2]
    await here.publish({"text": "höhö"})
    publication = (await heard_there.of("publication")).pub
    assert publication.data == {"text": "höhö"}, publication
    assert publication.offset == begun.stream_position.offset + 4, publication
    assert (publication.info.user, publication.info.conn_info) == ("ada", {"name": "ada"}), publication


async def sees_who_is_there(endpoint, name):
    channel = f"kept.{name}"
    ada, bob = await connected(endpoint, "ada"), await connected(endpoint, "bob")
    here, heard, _ = await subscribed(ada, channel, join_leave=True)
    there, _, _ = await subscribed(bob, channel)
    while (join := (await heard.of("join")).info).user != "bob":
        pass
    assert join.conn_info == {"name": "bob"}, join
    present = (await here.presence()).clients
    assert sorted(info.user for info in present.values()) == ["ada", "bob"], present
    stats = await here.presence_stats()
    assert (stats.num_clients, stats.num_users) == (2, 2), stats
    await there.unsubscribe()
    assert (await heard.of("leave")).info.user == "bob"


async def reads_history(endpoint, name):
    channel = f"kept.{name}"
    client = await connected(endpoint, "ada")
    subscription, heard, begun = await subscribed(client, channel)
    await publish(channel, 10)
    await numbers(heard, 10)

    async def read(**options):
        return [publication.data for publication in (await subscription.history(**options)).publications]

    assert await read(limit=3) == [0, 1, 2]
    assert await read(limit=3, reverse=True) == [9, 8, 7]
    end = await subscription.history(limit=0)
    # Offsets are those of the stream, which other channels of the template have part in.
    before = begun.stream_position.offset
    assert (end.offset, end.publications) == (before + 10, []), end
    since = StreamPosition(before + 4, end.epoch)
    assert await read(limit=2, since=since) == [4, 5]
    assert await read(limit=2, since=since, reverse=True) == [2, 1]


async def calls(endpoint, _):
    client = await connected(endpoint, "ada")
    assert (await client.rpc("echo", {"a": [1, "ü"]})).data == {"a": [1, "ü"]}
    assert await code_of(client.rpc("fail", {})) == 1000
    assert await code_of(client.rpc("nobody", {})) == 104


async def is_refused(endpoint, name):
    client = await connected(endpoint, "ada")
    for channel in ["kept.secret", "nobody.declares.it", "auditlog:eve"]:
        heard = Heard()
        await subscription_of(client, channel, heard).subscribe()
        assert (await heard.of("unsubscribed")).code == 103, channel
    assert await code_of(client.publish(f"kept.{name}", 1)) == 103
    subscription, _, _ = await subscribed(client, "camera.events")
    assert await code_of(subscription.history(limit=1)) == 108
    assert await code_of(subscription.presence()) == 108
    assert await code_of(subscription.publish(1)) == 108


async def connects_and_disconnects(endpoint, _):
    client = make(endpoint, token=await token(sub="ada"))
    for _ in range(LOOPS):
        await client.connect()
        await client.ready()
        await client.disconnect()
    await control({"do": "alone"})


async def subscribes_and_unsubscribes(endpoint, name):
    channel = f"kept.{name}"
    client = await connected(endpoint, "ada")
    heard = Heard()
    subscription = subscription_of(client, channel, heard)
    for _ in range(LOOPS):
        await subscription.subscribe()
        await subscription.ready()
        await subscription.unsubscribe()
    await subscription.subscribe()
    await subscription.ready()
    await publish(channel, 3)
    assert await numbers(heard, 3) == [0, 1, 2]


async def unsubscribes_before_the_reply(endpoint, name):
    channel = f"kept.{name}"
    client = await connected(endpoint, "ada")
    heard = Heard()
    subscription = subscription_of(client, channel, heard)
    for _ in range(100):
        subscribing = asyncio.create_task(subscription.subscribe())
        await asyncio.sleep(0)
        await subscription.unsubscribe()
        await subscribing
    # What was on its way has been answered.
    assert (await client.rpc("echo", 1)).data == 1
    assert client.state.value == "connected", client.state


async def has_many_subscriptions(endpoint, name):
    client = await connected(endpoint, "ada")
    every = await asyncio.gather(*(subscribed(client, f"kept.{name}-{number}") for number in range(500)))
    channels = [subscription.channel for subscription, _, _ in every]
    await control({"do": "publish", "channels": channels, "count": 2})
    for _, heard, _ in every:
        assert await numbers(heard, 2) == [0, 1]


async def comes_back(endpoint, name, happens):
    channel = f"kept.{name}"
    client = await connected(endpoint, "ada")
    _, heard, _ = await subscribed(client, channel)
    await publish(channel, 5)
    assert await numbers(heard, 5) == list(range(5))
    await control({"do": happens})
    await heard.of("subscribing")
    await publish(channel, 50, first=5)
    return channel, heard


async def recovers(endpoint, name, down, up):
    channel, heard = await comes_back(endpoint, name, down)
    await control({"do": up})
    again = await heard.of("subscribed")
    assert again.was_recovering and again.recovered, again
    await publish(channel, 5, first=55)
    assert await numbers(heard, 55) == list(range(5, 60))


async def recovers_after_a_cut(endpoint, name):
    await recovers(endpoint, name, "refuse", "heal")


async def recovers_after_a_restart(endpoint, name):
    await recovers(endpoint, name, "stop", "start")


async def hears_that_history_is_gone(endpoint, name):
    channel, heard = await comes_back(endpoint, name, "stop")
    await control({"do": "forget"})
    await control({"do": "start"})
    again = await heard.of("subscribed")
    assert again.was_recovering and not again.recovered, again
    await publish(channel, 2, first=100)
    assert await numbers(heard, 2) == [100, 101]


async def refreshes_its_token(endpoint, _):
    asked, twice = 0, asyncio.Event()

    async def get_token():
        nonlocal asked
        asked += 1
        if asked == 2:
            twice.set()
        return await token(sub="ada", exp=1 if asked < 2 else 600)

    heard = Heard()
    client = make(endpoint, heard, token=await token(sub="ada", exp=1), get_token=get_token)
    await client.connect()
    first = await heard.of("connected")
    await asyncio.wait_for(twice.wait(), PATIENCE)
    assert (await client.rpc("client", None)).data == first.client, "it is the same connection"


async def gets_another_token(endpoint, _):
    async def get_token():
        return await token(sub="ada")

    heard = Heard()
    client = make(endpoint, heard, token=await token(sub="ada", exp=-60), get_token=get_token)
    await client.connect()
    await heard.of("error")
    await heard.of("connected")
    for bad in ["no token", await token(sub="ada", key="another")]:
        heard = Heard()
        await make(endpoint, heard, token=bad).connect()
        assert (await heard.of("disconnected")).code == 3500


async def refreshes_subscription_tokens(endpoint, _):
    channel, asked, thrice = "kept.secret", 0, asyncio.Event()

    async def get_token(_channel):
        nonlocal asked
        asked += 1
        if asked == 3:
            thrice.set()
        return await token(sub="ada", channel=channel, exp=1 if asked < 3 else 600)

    client = await connected(endpoint, "ada")
    expired = await token(sub="ada", channel=channel, exp=-60)
    _, heard, _ = await subscribed(client, channel, token=expired, get_token=get_token)
    await asyncio.wait_for(thrice.wait(), PATIENCE)
    await publish(channel, 1)
    assert await numbers(heard, 1) == [0]
    assert "unsubscribed" not in heard.names(), heard.names()

    async def may_not(_channel):
        raise UnauthorizedError()

    other, heard = await connected(endpoint, "bob"), Heard()
    ends = await token(sub="bob", channel=channel, exp=1)
    _, heard, _ = await subscribed(other, channel, token=ends, get_token=may_not)
    assert (await heard.of("unsubscribed")).code == 1


async def obeys_the_server(endpoint, name):
    channel, connection = f"kept.{name}", Heard()
    client = await connected(endpoint, name, connection)
    subscription, heard, _ = await subscribed(client, channel)
    await control({"do": "unsubscribe", "user": name, "channel": channel, "code": 2500})
    assert (await heard.of("subscribing")).code in (0, 2500)
    assert (await heard.of("subscribed")).recovered
    await control({"do": "unsubscribe", "user": name, "channel": channel, "code": 2000})
    assert (await heard.of("unsubscribed")).code == 2000
    await subscription.subscribe()
    await heard.of("subscribed")
    await connection.of("connected")
    await control({"do": "disconnect", "user": name, "code": 3011})
    await connection.of("connected")
    await heard.of("subscribed")
    await control({"do": "disconnect", "user": name, "code": 3503})
    assert (await connection.of("disconnected")).code == 3503


async def does_without_what_is_not_offered(endpoint, name):
    client = await connected(endpoint, "ada")
    _, heard, _ = await subscribed(client, f"kept.{name}", delta=DeltaType.FOSSIL)
    await publish(f"kept.{name}", 3)
    assert await numbers(heard, 3) == [0, 1, 2]


async def main():
    endpoint = (await control({"do": "endpoint"}))["endpoint"]
    for test in [
        publishes_and_hears,
        sees_who_is_there,
        reads_history,
        calls,
        is_refused,
        connects_and_disconnects,
        subscribes_and_unsubscribes,
        unsubscribes_before_the_reply,
        has_many_subscriptions,
        recovers_after_a_cut,
        recovers_after_a_restart,
        hears_that_history_is_gone,
        refreshes_its_token,
        gets_another_token,
        refreshes_subscription_tokens,
        obeys_the_server,
        does_without_what_is_not_offered,
    ]:
        await test(endpoint, "py-" + test.__name__.replace("_", "-"))
        for client in clients:
            await client.disconnect()
        clients.clear()
        print(test.__name__, flush=True)
    print("done", flush=True)


asyncio.run(main())
