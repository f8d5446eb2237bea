"""A program that is not ours and takes part through redis-py.

Each line of its input is a JSON object that says what to `do`; each line of its output is the JSON of the answer. Bytes
travel as hexadecimal text, so that nothing between the two sides can change them.
"""

import json
import sys
from datetime import datetime, timezone

import redis

PATIENCE = 30

client = redis.Redis.from_url(sys.argv[1])
events = client.pubsub()


def in_order(text):
    """A JSON text as values that keep the order of the keys: an object becomes {"object": [[key, value], …]}."""
    return json.loads(text, object_pairs_hook=lambda pairs: {"object": [[key, value] for key, value in pairs]})


def next_of(*kinds):
    while True:
        event = events.get_message(timeout=PATIENCE)
        if event is None:
            raise TimeoutError(f"no {' or '.join(kinds)} within {PATIENCE} seconds")
        if event["type"] in kinds:
            return event


def subscribe(channel):
    events.subscribe(channel)
    next_of("subscribe")


def psubscribe(pattern):
    events.psubscribe(pattern)
    next_of("psubscribe")


def receive():
    event = next_of("message", "pmessage")
    pattern = event["pattern"]
    return {
        "pattern": pattern and pattern.decode(),
        "channel": event["channel"].decode(),
        "payload": event["data"].hex(),
    }


def publish(channel, text, ensure_ascii=True):
    """Publishes a value as Python writes it, with a space after each `,` and `:`."""
    return client.publish(channel, json.dumps(json.loads(text), ensure_ascii=ensure_ascii))


def publish_bytes(channel, payload):
    return client.publish(bytes.fromhex(channel), bytes.fromhex(payload))


def get(key):
    value = client.get(key)
    return value and value.hex()


def ttl(key):
    return client.ttl(key)


def set_value(key, text):
    return client.set(key, json.dumps(json.loads(text)), ex=60)


def seconds(moment):
    """The Unix time of a moment that ends in `Z`."""
    return int(datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def isoformat(seconds):
    """The same moment as Python writes it by itself."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


commands = {
    command.__name__: command
    for command in (
        in_order, subscribe, psubscribe, receive, publish, publish_bytes, get, ttl, set_value, seconds, isoformat
    )
}
for line in sys.stdin.buffer:
    arguments = json.loads(line)
    print(json.dumps(commands[arguments.pop("do")](**arguments)), flush=True)
