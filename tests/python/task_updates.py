"""A service that is not ours and takes part in task updates through redis-py.

It prints every update that it hears; for each line of its input, a task's id, it publishes one: appended to the stream, so that
it is kept as all others are, and published, so that whoever listens hears it.
"""

import json
import sys
import threading

import redis

client = redis.Redis.from_url(sys.argv[1], decode_responses=True)
updates = client.pubsub()
updates.subscribe("task_updates")
assert updates.get_message(timeout=30)["type"] == "subscribe"
print("subscribed to task_updates", flush=True)


def listen():
    for message in updates.listen():
        if message["type"] == "message":
            print(message["data"], flush=True)


threading.Thread(target=listen, daemon=True).start()
for line in sys.stdin:
    update = {"task_id": line.strip(), "status": "in_progress", "message": "Processing commission...", "progress": 50}
    stream = "msg:{task_updates}:stream"
    number = client.incr("msg:{task_updates}:n")
    client.xadd(stream, {"channel": "task_updates", "n": number, "data": json.dumps(update)}, maxlen=10_000)
    client.publish("task_updates", json.dumps(update))
