"""Messages come through whole; what is no message is refused, whatever it is."""

import json
import socket
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.sandbox import wire

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def exchange(data):
    """What `receive` makes of bytes after which the connection is closed."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            threading.Thread(target=lambda: theirs.sendall(data)).run()
        return wire.receive(ours, deadline_s=time.monotonic() + 10, most_bytes=1 << 16)


@settings(max_examples=100, deadline=None)
@given(plain, st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_sent_arrives(value, parts):
    ours, theirs = wire.pair()
    with ours, theirs:
        wire.send(theirs, value, parts)
        got, pieces = wire.receive(ours)
    assert got == value and [bytes(piece) for piece in pieces] == parts


def test_large_parts_arrive():
    ours, theirs = wire.pair()
    with ours, theirs:
        part = bytes(range(256)) * 50_000
        sender = threading.Thread(target=wire.send, args=(theirs, {"n": 1}, [part, b"", part]))
        sender.start()
        value, pieces = wire.receive(ours, deadline_s=time.monotonic() + 30)
        sender.join()
    assert value == {"n": 1} and [bytes(piece) for piece in pieces] == [part, b"", part]


def message(head, body=b""):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", struct.pack(">I", 0xFFFF_FFFF), struct.pack(">I", 10) + b"{}", message(b"not json"), message([]),
        message({"value": 1}), message({"value": 1, "sizes": 3}), message({"value": 1, "sizes": [-1]}),
        message({"value": 1, "sizes": ["9"]}), message({"value": 1, "sizes": [True]}, b"x"),
        message({"value": 1, "sizes": [1 << 40]}), message({"value": 1, "sizes": [0] * 100}),
        message({"value": 1, "sizes": [5]}, b"1234"), message(b"[" * 100_000), message({"value": 1, "sizes": [1e9]}),
        message(b'{"value":1,"sizes":[' + b"9" * 5000 + b"]}"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(data):
    with pytest.raises(wire.WireError):
        exchange(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(data):
    with pytest.raises(wire.WireError):
        exchange(data)


def test_one_that_trickles_does_not_hold_up_the_reader():
    """The deadline is for the whole message, not for its next byte."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle():
        theirs.sendall(struct.pack(">I", 100_000))
        while not stop.wait(0.05):
            theirs.sendall(b" ")

    sender = threading.Thread(target=trickle)
    with ours, theirs:
        sender.start()
        with pytest.raises(TimeoutError):
            wire.receive(ours, deadline_s=time.monotonic() + 0.5)
        stop.set()
        sender.join()
