"""Linux: a filter of system calls (seccomp) for a process that decodes.

It is a list of what is refused, not of what is allowed: new versions of Python and of the decoders go on working, and
what they could do harm with is on the list. Refused are the network, other programs and processes, opening files for
writing and every change to the file system, and calls that go around such a filter (io_uring, user namespaces, bpf).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _TSYNC = 1, 1  # of the call seccomp; the filter holds for all threads
_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x0001_0000
_TIOCSTI = 0x5412  # puts characters into the terminal's input
_OTHER_ABI = 0x4000_0000  # x86-64: calls of x32 have this bit

# Numbers of calls on x86-64 and on aarch64 (None: it has no such call); from 424 on they are the same everywhere.
_SPECIAL = {"open": (2, None), "openat": (257, 56), "clone": (56, 220), "ioctl": (16, 29)}
_CLONE3 = 435
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # network
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "bind": (49, 200), "listen": (50, 201),
    "socketpair": (53, 199), "accept4": (288, 242),
    # other programs and processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    # changes to the file system
    "creat": (85, None), "openat2": (437, 437), "truncate": (76, 45), "ftruncate": (77, 46), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "link": (86, None), "linkat": (265, 37), "unlink": (87, None), "unlinkat": (263, 35), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88),
    "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "memfd_create": (319, 279),
    # ways around
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000_003E, 317), "aarch64": (1, 0xC000_00B7, 277)}  # column, audit name, seccomp's number
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def no_new_privileges() -> None:
    """Programs that this process starts get no rights that it has not; filters need that. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")


def filter_calls() -> None:
    """Refuse the calls above to this process from now on, all its threads included.

    Raises OSError where the kernel has no such filter, or on a machine whose calls are not listed here.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    column, audit, seccomp = _MACHINES[platform.machine()]
    code = _program(column, audit)
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(seccomp), ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_TSYNC), program):
        raise OSError(ctypes.get_errno(), "the filter of system calls is refused")


def _program(column: int, audit: int) -> bytes:
    """The filter as instructions of the kernel's classic BPF, 8 bytes each: code, jumps if true and if false, value."""
    special = {name: numbers[column] for name, numbers in _SPECIAL.items()}
    refused = [number for numbers in _REFUSED.values() if (number := numbers[column]) is not None]
    not_allowed = _ERRNO | errno.EPERM
    lines = [(_LOAD, 0, 0, _MACHINE_AT), (_IF_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL_PROCESS)]
    lines += [(_LOAD, 0, 0, _CALL_AT), (_IF_AT_LEAST, 0, 1, _OTHER_ABI), (_RETURN, 0, 0, not_allowed)]
    for number in refused:
        lines += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, not_allowed)]
    # glibc starts threads with clone3, whose flags a filter cannot see; told that there is none, it takes clone.
    lines += [(_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    lines += _judged(special["clone"], 0, (_IF_ANY_BIT, 1, 0, _CLONE_THREAD), not_allowed)
    lines += _judged(special["openat"], 2, (_IF_ANY_BIT, 0, 1, _FOR_WRITING), _ERRNO | errno.EACCES)
    lines += _judged(special["open"], 1, (_IF_ANY_BIT, 0, 1, _FOR_WRITING), _ERRNO | errno.EACCES)
    lines += _judged(special["ioctl"], 1, (_IF_EQUAL, 0, 1, _TIOCSTI), not_allowed)
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _judged(
    number: int | None, argument: int, test: tuple[int, int, int, int], answer: int
) -> list[tuple[int, int, int, int]]:
    """A call that is refused with `answer` if `test` of one of its arguments does not jump over that."""
    if number is None:
        return []
    at = _ARGUMENTS_AT + 8 * argument  # the low half: both machines are little-endian
    return [
        (_IF_EQUAL, 0, 4, number), (_LOAD, 0, 0, at), test, (_RETURN, 0, 0, answer), (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
