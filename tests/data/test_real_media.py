"""Real clips: what the loader hands out is what the original file shows and sounds at that moment."""

import numpy as np
import pytest

from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.media import open_media
from avssl.shards import BuildOptions
from avssl.shards.build import build
from avssl.shards.sources import list_sources


@pytest.mark.parametrize("copy", [False, True])
def test_clips_are_those_of_the_originals(media_dir, tmp_path, copy):
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in sorted((media_dir / "av_labelled").glob("*/*"))[::6]:
        (folder / path.name).symlink_to(path)
    build(list_sources(folder), tmp_path / "set", BuildOptions(copy=copy, require="both"))
    video, audio = VideoSpec(frames=4, short_side_px=64), AudioSpec(duration_s=1.0)
    options = {"batch_size": 2, "clips": 2, "workers": 0, "augment": None}
    loader = Loader(DataConfig([str(tmp_path / "set")], video=video, audio=audio, **options), endless=False)
    checked = 0
    for batch in loader:
        for b, row in enumerate(batch["row"].tolist()):
            record = loader.shards.record(row)
            with open_media(folder / record["source"]) as media:
                for k in range(2):
                    video_s, audio_s = (record["start_s"] + batch["time_s"][b, k].numpy()).tolist()
                    size = tuple(batch["video_size_px"][b].tolist())
                    wanted = media.frames_at(video_s + np.arange(4) / 16, size_px=size).data.astype(float)
                    given = batch["video"][b, k, :, : size[0], : size[1]].numpy()
                    error = np.sqrt(np.mean((given - wanted) ** 2))
                    assert error < (1 if copy else 12), f"{record['source']} at {video_s} s: {error} levels"
                    sound = media.audio_between(audio_s, 1.0, rate_hz=24000).samples
                    assert np.allclose(batch["audio"][b, k], sound, atol=2e-3), f"{record['source']} at {audio_s} s"
                    checked += 1
    assert checked >= 6 and not loader.skipped
