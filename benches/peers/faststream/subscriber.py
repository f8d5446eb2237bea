"""`subscriber.py <port of Redis>`: FastStream with a model of pydantic handles orders up to the last one, and says on standard
output how it went, as the other sides do. Without a logger: by default it writes lines about each message."""

import asyncio
import json
import resource
import sys
import time

from faststream import FastStream
from faststream.redis import RedisBroker
from pydantic import BaseModel
from redis.asyncio import Redis

CHANNEL = "orders.created"
LAST = 9_999_999_999


class Customer(BaseModel):
    name: str
    email: str


class Line(BaseModel):
    sku: str
    count: int
    price: float


class Address(BaseModel):
    street: str
    city: str


class Order(BaseModel):
    id: int
    customer: Customer
    lines: list[Line]
    to: Address
    total: int
    paid: bool
    note: str


port = int(sys.argv[1])
url = f"redis://127.0.0.1:{port}"
broker = RedisBroker(url, logger=None)
app = FastStream(broker, logger=None)
handled = 0
start = (0.0, 0.0)


def say(said: dict) -> None:
    print(json.dumps(said), flush=True)


@broker.subscriber(CHANNEL)
async def created(order: Order) -> None:
    global handled, start
    if order.id == LAST:
        end = (time.perf_counter(), time.process_time())
        say(
            {
                "Done": {
                    "count": handled,
                    "seconds": end[0] - start[0],
                    "cpu_seconds": end[1] - start[1],
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            }
        )
        app.exit()
        return
    handled += 1
    if handled == 1:
        start = (time.perf_counter(), time.process_time())


@app.after_startup
async def subscribed() -> None:
    async with Redis.from_url(url) as redis:
        while (await redis.pubsub_numsub(CHANNEL))[0][1] == 0:
            await asyncio.sleep(0.01)
    say({"Ready": {"port": port}})


asyncio.run(app.run())
