"""A client of the gateway that is not ours: the WebSocket of `websockets`, the event stream of `sseclient`, and json.

Each line of its input is a JSON object that says what to `do`, mostly on the connection with some `name`; each line of its
output is the JSON of the answer.
"""

import json
import socket
import struct
import sys
import urllib.error
import urllib.request

import sseclient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_websocket

PATIENCE = 30

address = sys.argv[1]
websockets = {}
streams = {}
# No proxy of the environment comes between.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def connect(name, query="", subprotocols=None, headers=None):
    """Opens a WebSocket; the answer is the subprotocol that was chosen, or the status of a refusal."""
    try:
        websockets[name] = connect_websocket(
            f"ws://{address}/subscribe{query}",
            subprotocols=subprotocols,
            additional_headers=headers,
            open_timeout=PATIENCE,
            proxy=None,
        )
    except InvalidStatus as refused:
        return {"refused": refused.response.status_code}
    return {"subprotocol": websockets[name].subprotocol}


def say(name, messages):
    """Sends messages in one frame, joined by newlines."""
    websockets[name].send("\n".join(json.dumps(message) for message in messages))


def say_text(name, text):
    websockets[name].send(text)


def say_bytes(name):
    websockets[name].send(b"\x00")


def hear(name):
    """The next message, or how the connection was closed."""
    try:
        text = websockets[name].recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        received = closed.rcvd
        return {"closed": received and received.code, "reason": received and received.reason}
    assert isinstance(text, str), text
    return json.loads(text)


def close(name):
    """Says good-bye."""
    websockets.pop(name).close()


def cut(name):
    """Resets the connection without a word, as when a machine goes away."""
    cut_off = websockets.pop(name).socket
    cut_off.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cut_off.shutdown(socket.SHUT_RD)
    cut_off.close()


def ask(method, path, headers=None):
    """The response to an HTTP request, or its status."""
    request = urllib.request.Request(f"http://{address}{path}", method=method, headers=headers or {})
    try:
        return http.open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as refused:
        return refused.code


def post(path, headers=None):
    response = ask("POST", path, headers)
    return {"refused": response} if isinstance(response, int) else json.load(response)


def stream(name, query, headers=None):
    """Opens a stream of events."""
    response = ask("GET", f"/events?{query}", {"Accept": "text/event-stream", **(headers or {})})
    if isinstance(response, int):
        return {"refused": response}
    streams[name] = (response, sseclient.SSEClient(response).events())
    return {"type": response.headers["Content-Type"]}


def event(name):
    """The next event of a stream, or null at its end."""
    read = next(streams[name][1], None)
    return read and {"event": read.event, "id": read.id, "data": json.loads(read.data)}


def leave(name):
    streams.pop(name)[0].close()


commands = {
    command.__name__: command
    for command in (connect, say, say_text, say_bytes, hear, close, cut, post, stream, event, leave)
}
for line in sys.stdin.buffer:
    arguments = json.loads(line)
    print(json.dumps(commands[arguments.pop("do")](**arguments)), flush=True)
