"""`avssl-train`: help, printed config, and errors in one sentence with exit code 2."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from avssl.cli.train import main, read_config
from avssl.models.registry import tower_facts

CONFIGS = Path(__file__).parents[2] / "configs"


def call(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_help_documents_exit_codes_and_every_value(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert "75 stopped by a signal" in out
    for key in (
        "--run.dir text (required)",
        "--data.video.fps number (16.0)",
        "--phases[i].passes number or null (null)",
    ):
        assert key in out


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_resolves_and_its_resolved_form_is_itself(path, capsys, tmp_path):
    code, out, _ = call(capsys, "--config", str(path), "--print-config")
    assert code == 0
    again = tmp_path / "resolved.yaml"
    again.write_text(out)
    written, resolved = yaml.safe_load(path.read_text()), yaml.safe_load(out)
    assert yaml.safe_load(call(capsys, "--config", str(again), "--print-config")[1]) == resolved
    assert written["run"]["dir"] == resolved["run"]["dir"]
    assert path.read_text().startswith("# "), "a recipe says what it is"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--optim.rl", "1"], "--optim.rl: unknown key; did you mean 'optim.lr'?"),
        (["--batch-size", "1"], "--batch-size: unknown key; did you mean 'data.batch_size'?"),
        (["--optim.lr", "fast"], "optim.lr: expected number, got 'fast'"),
        (["--optim.lr"], "--optim.lr: has no value"),
        (["word"], "'word': expected --key value"),
        (["--task.name", "xyz"], "task.name is 'xyz', but the tasks are: "),
        (["--model.video.name", "resnet"], "there is no video tower 'resnet'"),
        (["--run.steps", "5.5"], "run.steps: expected integer, got 5.5"),
        (["--phases[0].steps", "5"], "--phases[0].steps: phases has 0 entries"),
        (["--phases", "{name: a, stesp: 5}"], "phases[0].stesp: unknown key; did you mean 'phases[0].steps'?"),
    ],
)
def test_wrong_use_is_one_sentence(capsys, argv, message):
    code, out, err = call(capsys, "--config", str(CONFIGS / "tiny.yaml"), *argv)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1 and not out


def test_no_config_and_no_shards(capsys, tmp_path):
    assert "no --config given" in call(capsys)[2]
    code, _, err = call(
        capsys,
        "--config",
        str(CONFIGS / "tiny.yaml"),
        "--data.shards",
        str(tmp_path),
        "--run.dir",
        str(tmp_path / "run"),
    )
    assert code != 0
    assert str(tmp_path) in err


def test_one_value_of_an_input_changes_and_the_others_stay_the_towers():
    config = read_config(str(CONFIGS / "avid_kinetics.yaml"), ["--model.video_input.size_px", "96"])
    made_for = tower_facts("video", "avid_r2plus1d_18").input
    assert config.model.video_input == dataclasses.replace(made_for, size_px=96)
    assert config.model.audio_input == tower_facts("audio", "avid_audio_cnn9").input


def test_options_win_over_the_file():
    options = ["--optim.lr=3e-3", "--data.shards", "a", "--data.video.frames", "4", "--model.video_input.frames", "4"]
    config = read_config(str(CONFIGS / "avid_kinetics_debug.yaml"), options)
    assert config.optim.lr == 3e-3
    assert config.data.shards == ["a"]
    assert config.model.video_input.frames == 4
    assert config.model.video_input.fps == 16
