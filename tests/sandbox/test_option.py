"""Both commands that read files of strangers confine decoding unless they are told not to."""

import pytest

from avssl.cli import embed, shards


@pytest.mark.parametrize(
    ("command", "arguments"), [(shards, ["build", "videos", "out"]), (embed, ["a.mp4", "-o", "a.npz"])]
)
def test_the_sandbox_is_the_default(command, arguments):
    parse = command._parser().parse_args
    assert parse(arguments).sandbox is True
    assert parse([*arguments, "--sandbox"]).sandbox is True
    assert parse([*arguments, "--no-sandbox"]).sandbox is False
