"""Functions that confined processes of the tests run; they are found there by import."""

import os
import signal
import threading
import time
from pathlib import Path


def obey(request, descriptor):
    """Does what it is told."""
    verb, *rest = request
    return globals()[f"_{verb}"](descriptor, *rest)


def _echo(descriptor, value, parts):
    return value, parts


def _die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(descriptor, code):
    os._exit(code)


def _hang(descriptor):
    time.sleep(600)


def _compute(descriptor, seconds):
    from avssl.sandbox.confine import limit_cpu

    limit_cpu(seconds)
    while True:
        pass


def _raise(descriptor):
    raise RuntimeError("a defect")


def _take(descriptor, mebibytes):
    try:
        taken = bytearray(mebibytes << 20)
    except MemoryError:
        return "MemoryError", []
    return len(taken), []


def _threads(descriptor):
    numbers = []
    threads = [threading.Thread(target=numbers.append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(numbers), []


def _open_descriptors(descriptor):
    found = []
    for number in range(3, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return len(found), []


def _read_given(descriptor):
    return os.pread(descriptor, 100, 0).decode(), []


def _try(descriptor, name, *arguments):
    """The error number of a call of `os`, 0 if it went through."""
    try:
        getattr(os, name)(*(os.getppid() if argument == "parent" else argument for argument in arguments))
    except OSError as error:
        return error.errno, []
    return 0, []


def _read_file(descriptor, path):
    try:
        return Path(path).read_text(), []
    except OSError as error:
        return error.errno, []
