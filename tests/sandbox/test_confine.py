"""What a confined process cannot do is tried, not read from a list."""

import errno
import os
import signal
import sys
import time

import pytest
from sandbox_tools import obey

from avssl.sandbox import examine
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.child import Child, DeadError

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's protections are those of Linux")


@pytest.fixture(scope="module")
def child():
    child = Child(obey, Bounds(memory_mb=512))
    child.hear_ready()
    yield child
    child.end()


def ask(child, *request, descriptor=None):
    child.send(request, descriptor)
    return child.receive(time.monotonic() + 60)[0]


@linux
def test_every_promise_holds_when_it_is_tried():
    assert examine.holds(Bounds()) == dict.fromkeys(examine.TRIED, True)


@linux
def test_without_bounds_the_same_attempts_succeed():
    """So they are real ones."""
    held = examine.holds(None)
    assert [name for name in held if held[name]] in ([], ["memory"])  # the system may refuse 64 GiB by itself


@linux
@pytest.mark.parametrize(
    "call",
    [
        ("unlink", "PATH"), ("rename", "PATH", "PATH2"), ("mkdir", "PATH2"), ("symlink", "PATH", "PATH2"),
        ("link", "PATH", "PATH2"), ("chmod", "PATH", 0o777), ("truncate", "PATH", 0), ("utime", "PATH"),
        ("kill", "parent", 0), ("fork",), ("execv", sys.executable, [sys.executable, "-c", ""]), ("memfd_create", "x"),
        ("mkfifo", "PATH2"), ("chown", "PATH", 0, 0), ("setxattr", "PATH", "user.x", b"1"),
    ],
    ids=lambda call: call[0],
)  # fmt: skip
def test_refused_calls(child, tmp_path, call):
    path = tmp_path / "there"
    path.write_text("untouched")
    places = {"PATH": str(path), "PATH2": str(tmp_path / "new")}
    arguments = [places.get(argument, argument) if isinstance(argument, str) else argument for argument in call]
    assert ask(child, "try", *arguments) in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EXDEV)
    assert path.read_text() == "untouched" and [file.name for file in tmp_path.iterdir()] == ["there"]


@linux
def test_files_of_others_are_out_of_reach_but_for_those_handed_over(child, tmp_path):
    path = tmp_path / "secret"
    path.write_text("secret")
    assert ask(child, "read_file", str(path)) == errno.EACCES
    assert ask(child, "read_file", "/etc/passwd") == errno.EACCES
    (tmp_path / "link").symlink_to(path)
    assert ask(child, "read_file", str(tmp_path / "link")) == errno.EACCES
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert ask(child, "read_given", descriptor=descriptor) == "secret"
        assert ask(child, "read_file", str(path)) == errno.EACCES
    finally:
        os.close(descriptor)


def test_only_its_connection_is_open(child):
    """Not the files, sockets and pipes of the parent, nor a file that came with an earlier request."""
    assert ask(child, "open_descriptors") == 1


def test_threads_still_start(child):
    assert ask(child, "threads") == [0, 1, 2, 3]


@linux
def test_memory_is_capped(child):
    assert ask(child, "take", 100) == 100 << 20
    assert ask(child, "take", 600) == "MemoryError"


def test_computing_time_is_capped():
    child = Child(obey, Bounds())
    try:
        child.hear_ready()
        child.send(("compute", 0.5))
        with pytest.raises(DeadError, match=signal.SIGXCPU.name):
            child.receive(time.monotonic() + 120)
    finally:
        child.end()


@pytest.mark.parametrize(
    ("request_", "message"), [(("die",), "SIGKILL"), (("exit", 3), "exit code 3"), (("raise",), "exit code 1")]
)
def test_a_death_is_told(request_, message):
    child = Child(obey, None)
    try:
        child.hear_ready()
        child.send(request_)
        with pytest.raises(DeadError, match=message):
            child.receive(time.monotonic() + 60)
        child.send(("echo", 1, []))  # to one that is gone: no error here, but no answer either
        with pytest.raises(DeadError):
            child.receive(time.monotonic() + 60)
    finally:
        child.end()


def test_a_hang_ends_at_the_deadline():
    child = Child(obey, None)
    try:
        child.hear_ready()
        child.send(("hang",))
        with pytest.raises(TimeoutError):
            child.receive(time.monotonic() + 0.5)
    finally:
        child.end()
    assert not child.is_alive()
