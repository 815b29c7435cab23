"""Every registered tower: builds, shapes, gradients, stages, files, independence of the batch, bfloat16, facts."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avssl.errors import ConfigError, ModelError
from avssl.models.config import AudioInput, VideoInput
from avssl.models.registry import create_tower, list_towers, tower_facts

# A study in eval/ may have registered towers of its own in this process.
TOWERS = [(k, name) for k in ("video", "audio") for name in list_towers(k) if not name.startswith("study_")]

# Towers whose size is built in are built small; the others take small input as they are.
SMALL = {"tv_mvit_v2_s": {"frames": 4, "size_px": 64}}


@cache
def tower_of(kind, name):
    torch.manual_seed(0)
    with torch.inference_mode(False):
        return create_tower(kind, name, **SMALL.get(name, {})).eval()


def example(kind, name, batch=3, **size):
    generator = torch.Generator().manual_seed(1)
    if kind == "video":
        frames, side = SMALL.get(name, {}).get("frames", 4), SMALL.get(name, {}).get("size_px", 48)
        return torch.randn(batch, 3, size.get("frames", frames), size.get("side", side), side, generator=generator)
    return torch.randn(batch, tower_facts(kind, name).input.channels, 50, 64, generator=generator)


def test_the_registry_lists_what_the_issue_names():
    assert {"avid_r2plus1d_10", "avid_r2plus1d_18", "avid_r2plus1d_34", "avsa_r2plus1d_18", "tiny_video"} <= set(
        list_towers("video")
    )
    assert {"tv_r2plus1d_18", "tv_r3d_18", "tv_mvit_v2_s", "tv_swin3d_t"} <= set(list_towers("video"))
    assert {"avid_audio_cnn9", "avsa_audio_cnn9", "tiny_audio"} <= set(list_towers("audio"))


@pytest.mark.parametrize(("kind", "name"), TOWERS)
class TestEveryTower:
    def test_facts_are_there(self, kind, name):
        facts = tower_facts(kind, name)
        assert facts.source
        if kind == "video":
            assert isinstance(facts.input, VideoInput)
            assert facts.input.fps > 0 and facts.input.frames > 0 and facts.input.resize_px >= facts.input.size_px
            assert all(0 < value < 1 for value in (*facts.input.mean, *facts.input.std))
        else:
            assert isinstance(facts.input, AudioInput)
            assert facts.input.samples > 0 and facts.input.channels > 0

    @torch.inference_mode()
    def test_stages_end_in_the_output_and_items_do_not_depend_on_their_batch(self, kind, name):
        tower, x = tower_of(kind, name), example(kind, name)
        output = tower(x)
        assert output.shape == (3, tower.feature_dim) and output.isfinite().all()
        stages = tower.feature_stages(x)
        assert tuple(stages) == tower.stage_names and list(stages)[-1] == "pool"
        torch.testing.assert_close(stages["pool"], output, rtol=0, atol=0)
        for stage in list(stages.values())[:-1]:
            assert stage.shape[0] == 3 and stage.ndim == x.ndim, "a map [B, C, ...]"
        torch.testing.assert_close(tower(x[1:2]), output[1:2], rtol=1e-4, atol=1e-5)

    def test_every_parameter_gets_a_gradient(self, kind, name):
        tower = tower_of(kind, name)
        tower.train()
        try:
            for parameter in tower.parameters():
                parameter.grad = None
            tower(example(kind, name, batch=2)).square().sum().backward()
            dead = [key for key, parameter in tower.named_parameters() if parameter.grad is None]
            assert not dead
            assert all(parameter.grad.isfinite().all() for parameter in tower.parameters())
        finally:
            tower.eval()
            tower.zero_grad()

    @torch.inference_mode()
    def test_weights_survive_a_file(self, kind, name, tmp_path):
        tower = tower_of(kind, name)
        file = tmp_path / "weights.safetensors"
        state = getattr(tower, "net", tower).state_dict()  # torchvision's towers read torchvision's own layout
        save_file({key: value.contiguous() for key, value in state.items()}, file)
        again = create_tower(kind, name, weights=str(file), **SMALL.get(name, {})).eval()
        torch.testing.assert_close(again.state_dict(), tower.state_dict(), rtol=0, atol=0)
        x = example(kind, name, batch=1)
        torch.testing.assert_close(again(x), tower(x), rtol=0, atol=0)

    @torch.inference_mode()
    def test_bfloat16_stays_near_float32(self, kind, name):
        tower, x = tower_of(kind, name), example(kind, name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = tower(x).float()
        cosine = torch.nn.functional.cosine_similarity(half, tower(x)).min()
        assert half.isfinite().all() and cosine > 0.98

    def test_other_lengths_work_where_promised(self, kind, name):
        tower = tower_of(kind, name)
        if kind == "video" and tower.any_length:
            with torch.inference_mode():
                for frames in (1, 5, 9):
                    assert tower(example(kind, name, batch=1, frames=frames)).isfinite().all()


def test_the_variant_switches_change_the_computation_but_no_shape():
    for kind, pair in (("video", "r2plus1d_18"), ("audio", "audio_cnn9")):
        avid, avsa = create_tower(kind, f"avid_{pair}"), create_tower(kind, f"avsa_{pair}")
        if kind == "audio":
            avsa = create_tower(kind, f"avsa_{pair}", in_channels=1)
        avsa.load_state_dict(avid.state_dict())
        x = example(kind, f"avid_{pair}", batch=1)
        assert (
            avid.feature_stages(x)["conv2x" if kind == "video" else "block1"].shape[2:]
            != (avsa.feature_stages(x)["conv2x" if kind == "video" else "block1"].shape[2:])
        )


def test_pitch_survives_the_pooling_of_the_tiny_audio_tower():
    """Two tones a fifth apart, anywhere in the middle of the scale, must not look the same to an untrained tower."""
    tower = tower_of("audio", "tiny_audio")
    picture = torch.full((2, 1, 50, 64), -2.0)
    picture[0, 0, :, 24:28], picture[1, 0, :, 40:44] = 2.0, 2.0
    with torch.inference_mode():
        low, high = tower(picture)
    assert (low - high).norm() / low.norm() > 0.01


def test_unknown_names_and_arguments_point_to_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'tiny_video'"):
        create_tower("video", "tinyvideo")
    with pytest.raises(ConfigError, match="did you mean 'in_channels'"):
        create_tower("audio", "tiny_audio", in_channel=2)


class TestWeightFiles:
    def expect(self, path, message, name="tiny_video"):
        with pytest.raises(ModelError, match=message) as error:
            create_tower("video", name, weights=str(path))
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    def test_absent(self, tmp_path):
        self.expect(tmp_path / "gone.pth", "no such file")

    def test_of_another_architecture(self, tmp_path):
        torch.save(tower_of("video", "avid_r2plus1d_10").state_dict(), tmp_path / "a.pth")
        self.expect(tmp_path / "a.pth", r"does not fit .*: [0-9]+ missing \(\S+, \S+, \S+, …\), [0-9]+ unexpected \(")

    def test_of_another_shape(self, tmp_path):
        state = dict(tower_of("video", "tiny_video").state_dict())
        state["conv1.0.weight"] = torch.zeros(16, 3, 1, 7, 7)
        torch.save(state, tmp_path / "a.pth")
        self.expect(tmp_path / "a.pth", r"conv1\.0\.weight is \[16, 3, 1, 7, 7\] instead of \[32, 3, 1, 7, 7\]")

    def test_garbage(self, tmp_path):
        for name in ("a.pth", "a.safetensors"):
            for content in (b"", b"not a file of tensors", bytes(range(256)) * 40):
                (tmp_path / name).write_bytes(content)
                self.expect(tmp_path / name, "cannot be read|damaged")

    def test_truncated(self, tmp_path):
        state = {key: value.contiguous() for key, value in tower_of("video", "tiny_video").state_dict().items()}
        save_file(state, tmp_path / "a.safetensors")
        torch.save(state, tmp_path / "a.pth")
        for name in ("a.pth", "a.safetensors"):
            path = tmp_path / name
            path.write_bytes(path.read_bytes()[:100_000])
            self.expect(path, "cannot be read|damaged")

    def test_that_runs_code_is_not_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "exploded",))

        torch.save({"model": Bomb()}, tmp_path / "a.pth")
        self.expect(tmp_path / "a.pth", "cannot be read as a file of tensors")
        assert not (tmp_path / "exploded").exists()

    def test_without_a_state_dict(self, tmp_path):
        torch.save([torch.zeros(3)], tmp_path / "a.pth")
        self.expect(tmp_path / "a.pth", "holds no state dict")


def test_the_table_in_the_documentation_is_that_of_the_registry():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = {
        match[1]: int(match[2].replace(",", ""))
        for match in re.finditer(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \|", text, re.MULTILINE)
    }
    with torch.device("meta"):
        towers = {name: create_tower(kind, name) for kind, name in TOWERS}
    assert rows == {name: sum(parameter.numel() for parameter in tower.parameters()) for name, tower in towers.items()}
