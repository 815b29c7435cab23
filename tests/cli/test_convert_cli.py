"""avssl-convert as a user runs it, up to embeddings from the converted model."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch
from published_states import avid_criterion, avsa_criterion_shapes, avsa_shapes, checkpoint, filled_at_random

from avssl.cli import convert, embed

RATE_HZ = 24000


@pytest.fixture
def run(capsys):
    """Runs a command in this process; (exit code, standard output, standard error)."""

    def call(main, *arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    content = checkpoint(filled_at_random(avsa_shapes()), filled_at_random(avsa_criterion_shapes()))
    torch.save(content, folder / "avsa.pth.tar")
    return folder / "avsa.pth.tar"


def test_a_checkpoint_becomes_a_model_that_embeds_and_goes_back(run, published, tmp_path):
    statistics = {"mean": np.linspace(-50, -25, 128).tolist(), "std": [23.7] * 128}
    (tmp_path / "stats.json").write_text(json.dumps(statistics))
    code, out, err = run(convert.main, published, tmp_path / "avsa", "--stats", tmp_path / "stats.json", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["layout"], report["warnings"], report["left_out"]) == ("avsa", [], ["optimizer"])
    assert report["facts"]["criterion"]["entries"] == 72

    ambisonic = np.random.default_rng(0).standard_normal((RATE_HZ, 4)) * 0.1
    soundfile.write(tmp_path / "ambisonic.wav", ambisonic, RATE_HZ, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", ambisonic[:, :2], RATE_HZ, subtype="FLOAT")
    code, _, err = run(
        embed.main, tmp_path / "ambisonic.wav", tmp_path / "stereo.wav", "-o", tmp_path / "out.npz",
        "--model", tmp_path / "avsa", "--modality", "audio", "--layers", "pool", "--device", "cpu",
    )  # fmt: skip
    assert code == 1 and "stereo.wav: its sound is stereo, the model hears 4" in err
    with np.load(tmp_path / "out.npz") as rows:
        assert rows["audio"].shape == (1, 512)
        pool = rows["audio.pool"][0]
        np.testing.assert_allclose(rows["audio"][0], pool / np.linalg.norm(pool), atol=1e-6)

    code, out, _ = run(convert.main, tmp_path / "avsa", tmp_path / "back.pth.tar", "--to", "avsa")
    assert code == 0 and "255 entries in the layout avsa" in out
    back, original = (torch.load(path, weights_only=True) for path in (tmp_path / "back.pth.tar", published))
    for section in ("model", "train_criterion"):
        assert back[section].keys() == original[section].keys()
        assert all(torch.equal(back[section][key], tensor) for key, tensor in original[section].items())


def test_without_statistics_it_says_what_is_used_instead(run, published, tmp_path):
    code, out, err = run(convert.main, published, tmp_path / "avsa")
    assert code == 0
    assert "note: the features of sound depend on the normalisation" in err and "--stats FILE" in err
    assert "AVSA, 255 entries, 20,114,240 parameters; 72 entries of the criterion as its aligner" in out
    assert "licence: none stated" in out


class TestRefused:
    @pytest.fixture
    def expect(self, run):
        def check(wanted, message, *arguments):
            code, out, err = run(convert.main, *arguments)
            assert (code, err.count("\n"), out) == (wanted, 1, "")
            assert message in err

        return check

    def test_a_file_that_does_not_fit(self, expect, tmp_path):
        torch.save({"model": {"layer.weight": torch.zeros(3)}}, tmp_path / "other.pth")
        expect(1, "has no known layout", tmp_path / "other.pth", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_file_that_would_run_code(self, expect, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "exploded"),))

        torch.save(Bomb(), tmp_path / "bomb.pth")
        expect(1, "only running code could restore", tmp_path / "bomb.pth", tmp_path / "out")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["folder", "out"], "is a folder; name a checkpoint's file, or say with --to"),
            (["file", "out", "--to", "avid"], "with --to, SRC is a model folder"),
            (["folder", "out", "--to", "avid", "--stats", "x.npz"], "--stats does not go with --to"),
            (["file", "out", "--kind", "avis"], "invalid choice: 'avis'"),
            (["file"], "required: OUT"),
        ],
    )
    def test_wrong_use(self, expect, arguments, message, tmp_path):
        (tmp_path / "folder").mkdir()
        torch.save(avid_criterion(), tmp_path / "file")
        paths = [tmp_path / word if word in ("folder", "file", "out") else word for word in arguments]
        expect(2, message, *paths)
