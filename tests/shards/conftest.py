"""The fixture shared by the tests of shards."""

import pytest
from shard_builders import made_up_clip, write_folder


@pytest.fixture
def folder(tmp_path):
    """20 clips in 4 shards; every third has no sound, every fifth no picture, every second the label "even"."""
    clips = [
        made_up_clip(n, "even" if n % 2 == 0 else None, audio=n % 3 != 0 or n % 5 == 0, video=n % 5 != 0)
        for n in range(20)
    ]
    return write_folder(tmp_path / "shards", clips, rejected=["bad.mp4"], shard_clips=5)
