"""A corpus of files that somebody made to do harm, generated: each by name, as the bytes of a file."""

import io
import struct
import tarfile
import zipfile

from avssl.synthetic import fixtures


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def nested_boxes(depth):
    """MP4 boxes one in the other, as deep as their sizes allow."""
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return box(b"ftyp", b"isom\0\0\2\0isom") + data


def nested_elements(depth):
    """Matroska: master elements of unknown size one in the other, which never end."""
    head = bytes.fromhex("1a45dfa3") + b"\x8b" + bytes.fromhex("4282887765626d") + b"\0\0\0\0"
    return head + (bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7) * depth


def with_length(data, kind, length):
    """The first box of a kind says another length."""
    at = data.index(kind) - 4
    return data[:at] + struct.pack(">I", length) + data[at + 4 :]


def with_counts(data, kind, count):
    """The first table of a kind says another number of entries."""
    at = data.index(kind) + 8
    return data[:at] + struct.pack(">I", count) + data[at + 4 :]


def endless_transport_stream():
    """Packets of nothing but stuffing, 6 MB of them, behind a proper beginning."""
    empty = b"\x47\x1f\xff\x10" + b"\xff" * 184
    return fixtures.clip("ts-mpeg2-mp2", duration_s=0.3)[: 188 * 40] + empty * 32_000


def endless_ogg():
    """Pages of no packets, whose stream never ends."""
    page = b"OggS\0\0" + b"\xff" * 8 + struct.pack("<III", 7, 1, 0) + b"\xff" + b"\xff" * 255 + b"\0" * (255 * 255)
    return page * 60


def wave(size, channels=2, rate_hz=8000, bits=16, content=b"\0" * 64):
    """A WAV file that says it has `size` bytes of sound."""
    frame = channels * bits // 8 & 0xFFFF
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame & 0xFFFFFFFF, frame, bits)
    return b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + form + (
        b"data" + struct.pack("<I", size & 0xFFFFFFFF) + content
    )  # fmt: skip


def media(secret):
    """Files that are given as videos; `secret` is a path that none of them may reach."""
    clip = fixtures.clip("mp4-h264-aac", duration_s=1.0)
    packed = fixtures.clip("mp4-h264-fastdecode", duration_s=1.0)
    files = {
        "cut in the header": clip[:40],
        "cut in the middle": clip[: len(clip) // 2],
        "cut at the end": clip[:-1],
        "flipped": fixtures.bit_flipped(clip, 200),
        "flipped in the table": fixtures.bit_flipped(clip, 40, begin=0.9),
        "huge picture": fixtures.huge_header("mp4", 16000),
        "huge picture in Matroska": fixtures.huge_header("matroska", 16000),
        "large picture": fixtures.huge_header("mp4", 5000),
        "box to beyond the end": with_length(clip, b"mdat", 0x7FFFFFFF),
        "box of no length": with_length(clip, b"moov", 0),
        "box shorter than its head": with_length(clip, b"trak", 3),
        "box that holds itself": with_length(clip, b"stbl", len(clip)),
        "endless times": with_counts(packed, b"stts", 0xFFFFFFFF),
        "endless sizes": with_counts(packed, b"stsz", 0xFFFFFFFF),
        "endless chunks": with_counts(packed, b"stco", 0x7FFFFFFF),
        "nested boxes": nested_boxes(50_000),
        "nested elements": nested_elements(50_000),
        "endless transport stream": endless_transport_stream(),
        "endless Ogg": endless_ogg(),
        "sound longer than its file": wave(0xFFFFFFF0),
        "sound of no channels": wave(64, channels=0),
        "sound of 65535 channels": wave(64, channels=65535),
        "sound at no rate": wave(64, rate_hz=0),
        "sound at 4 GHz": wave(64, rate_hz=0xFFFFFFFF),
        "sound of 255 bits": wave(64, bits=255),
        "an archive": archive({"a.txt": b"x"}),
        "a zip bomb": zip_bomb(size=64 << 20),
        "a script": b"#!/bin/sh\ntouch " + str(secret).encode(),
        "a picture": b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
        "a reference to another file": fixtures.with_external_reference(secret),
        "noise behind a magic": b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 40,
    }
    files |= {f"a list: {name}": data for name, data in fixtures.playlists(secret).items()}
    for url in (b"http://127.0.0.1:9/x.ts", b"concat:/etc/passwd|/etc/group", b"subfile,,start,0,end,9,,:/etc/passwd"):
        files[f"a list of {url[:7].decode()}"] = b"#EXTM3U\n#EXTINF:1,\n" + url + b"\n"
    return files


def archive(members, *, kind=tarfile.REGTYPE, link=""):
    """A tar of `members`, links to `link` where their kind is one."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zip_bomb(name="a.npy", size=1 << 30):
    """A zip of a megabyte that unpacks to a gigabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb, bomb.open(name, "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return file.getvalue()


def lying_member(size):
    """A tar whose first member says it has `size` bytes."""
    data = bytearray(archive({"0000000000000000.json": b"{}"}))
    data[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 8**11 else b"%011o\0" % size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)
