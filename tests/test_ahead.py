"""Working ahead in a thread: same items, same errors, nothing left running."""

import threading
import time

import pytest

from avssl.ahead import ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "avssl-ahead"]


def test_the_same_items_in_order_and_no_thread_left():
    assert list(ahead(range(50), depth=3)) == list(range(50))
    assert not threads()


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise KeyError("two")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="two"):
        next(found)
    assert not threads()


def test_only_depth_items_are_made_ahead_and_closing_ends_the_source():
    made, closed = [], threading.Event()

    def items():
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    found = ahead(items(), depth=2)
    assert [next(found), next(found)] == [0, 1]
    time.sleep(0.3)
    assert len(made) <= 2 + 2 + 1  # taken, waiting, and the one that finds no room
    found.close()
    assert closed.wait(5) and not threads()
