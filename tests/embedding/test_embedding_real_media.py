"""Real clips: containers, codecs and damage that builders do not make."""

import numpy as np
import pytest
from tiny_media import save_tiny_model

import avssl
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.media import probe

FILES = [
    "video/bigbuckbunny.mp4",
    "video/nasa_13013.mp4",
    "video/flipping_a_pancake.mkv",
    "video/v_ApplyEyeMakeup_ucf101.avi",
    "video/silent_track.mp4",
    "video/no_audio_stream.mp4",
    "av_labelled/gun/dfoley_gun.mp4",
    "speech_digits",
]


@pytest.mark.parametrize("name", FILES)
def test_real_files_give_unit_rows_at_the_right_times(media_dir, tmp_path, name):
    path = media_dir / name
    if path.is_dir():
        path = sorted(file for file in path.iterdir() if file.suffix in (".wav", ".flac"))[0]
    model = avssl.load(save_tiny_model(tmp_path / "model"))
    report = embed_to_file(model, find_units([path]), tmp_path / "out.npz", options_for(model))
    assert not report.failed
    info = probe(path)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as rows:
        assert rows["start_s"].tolist() == list(range(len(rows["path"])))
        assert rows["end_s"][-1] == pytest.approx(info.duration_s, abs=0.1)
        assert rows["end_s"][:-1] == pytest.approx(rows["start_s"][:-1] + 2)
        for kind in ("video", "audio"):
            present = getattr(info, kind) is not None
            assert rows[f"has_{kind}"].all() == present
            assert np.linalg.norm(rows[kind], axis=1) == pytest.approx(float(present), abs=1e-5)
