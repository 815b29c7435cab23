"""YAMNet from the user's own ONNX file. The network here is a small one of the same inputs and outputs."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from avssl import files
from avssl.data.anchors import AnchorTable
from avssl.data.config import AnchorConfig, AudioSpec, DataConfig
from avssl.errors import ConfigError, ModelError
from avssl.media.flac import encode_flac
from avssl.separation.anchor_mining import mine
from avssl.separation.ontology import audioset
from avssl.separation.yamnet import WINDOW, YamNet, log_mel, yamnet_ontology
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources

RATE_HZ = 16_000
SCALE, ZERO = 0.05, 140
OUT_SCALE, OUT_ZERO = 0.1, 128
random = np.random.default_rng(0)
WEIGHT = random.normal(0, 0.5, (1, 521)).astype(np.float32)
BIAS = random.normal(0, 1, 521).astype(np.float32)
WEIGHT[0, 0], BIAS[0] = 3, 9  # speech: the louder the likelier


def write(path, shape=("n", 1, 96, 64), sigmoid=False, quantised=False, classes=521):
    """Scores that depend on the mean of a patch, or on the mean square of a waveform, as an ONNX file."""
    values = {"w": WEIGHT[:, :classes], "b": BIAS[:classes], "axes": np.array([*range(1, len(shape))] or [0])}
    values |= {"s": np.float32(SCALE), "z": np.uint8(ZERO), "os": np.float32(OUT_SCALE), "oz": np.uint8(OUT_ZERO)}
    values["row"] = np.array([-1, 1])
    nodes, x = [], "audio"
    if quantised:
        nodes.append(helper.make_node("DequantizeLinear", [x, "s", "z"], ["real"]))
        x = "real"
    if len(shape) == 1:
        nodes.append(helper.make_node("Mul", [x, x], ["square"]))
        x = "square"
    nodes += [
        helper.make_node("ReduceMean", [x, "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "row"], ["column"]),
        helper.make_node("Gemm", ["column", "w", "b"], ["logits"]),
    ]
    last = "logits"
    if sigmoid:
        nodes.append(helper.make_node("Sigmoid", [last], ["p"]))
        last = "p"
    if quantised:
        nodes.append(helper.make_node("QuantizeLinear", [last, "os", "oz"], ["scores"]))
    else:
        nodes.append(helper.make_node("Identity", [last], ["scores"]))
    kind = TensorProto.UINT8 if quantised else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("audio", kind, list(shape))],
        [helper.make_tensor_value_info("scores", kind, [None, classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_patches_are_those_of_the_published_front_end():
    wave = random.normal(0, 0.1, (2, WINDOW))
    wave[1] *= 1e-3  # where the offset counts
    found = log_mel(wave)
    assert found.shape == (2, 96, 64) and found.dtype == np.float32
    mel = 1127.0 * np.log(1 + np.arange(257) * RATE_HZ / 512 / 700.0)  # as its authors write the scale
    edges = np.linspace(1127.0 * np.log(1 + 125 / 700.0), 1127.0 * np.log(1 + 7500 / 700.0), 66)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    for item, frame, band in [(0, 0, 0), (0, 95, 63), (1, 40, 20), (1, 7, 50)]:
        cut = wave[item, 160 * frame :][:400] * window
        turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
        low, centre, high = edges[band : band + 3]
        triangle = np.minimum((mel - low) / (centre - low), (high - mel) / (high - centre)).clip(0)
        assert found[item, frame, band] == pytest.approx(np.log(np.abs(turns @ cut) @ triangle + 0.001), abs=1e-5)


def test_classes_are_audiosets_without_six():
    ontology = yamnet_ontology()
    names = [node.name for node in ontology.classes]
    assert len(names) == 521 and names[:3] == ["Speech", "Child speech, kid speaking", "Conversation"]
    assert names == [node.name for node in audioset().classes if node.name in set(names)]
    assert ontology.nodes.keys() == audioset().nodes.keys()
    assert ontology.find("Male speech, man speaking").class_index is None


@pytest.mark.parametrize(
    ("shape", "within_sigmoid", "quantised"),
    [(("n", 1, 96, 64), False, False), ((1, 1, 96, 64), True, False), (("n", 96, 64), False, False),
     ((1, 1, 96, 64), False, True)],
)  # fmt: skip
def test_probabilities_of_every_form(tmp_path, shape, within_sigmoid, quantised):
    yamnet = YamNet(write(tmp_path / "net.onnx", shape, within_sigmoid, quantised))
    wave = 0.1 * torch.from_numpy(random.normal(size=(2, 1, 3 * WINDOW))).float()
    found = yamnet.frame_probabilities(wave, RATE_HZ, hop_s=WINDOW / RATE_HZ)
    assert found.shape == (2, 3, 521)
    patches = log_mel(wave[:, 0].numpy().reshape(6, WINDOW))
    if quantised:
        patches = SCALE * (np.round(patches / SCALE + ZERO).clip(0, 255) - ZERO)
    logits = patches.mean((1, 2))[:, None] @ WEIGHT + BIAS
    if quantised:
        logits = OUT_SCALE * (np.round(logits / OUT_SCALE + OUT_ZERO).clip(0, 255) - OUT_ZERO)
    within = 0.026 if quantised else 1e-4  # a step of the output at most: 0.1 / 4
    np.testing.assert_allclose(found.reshape(6, 521), sigmoid(logits), atol=within)
    torch.testing.assert_close(yamnet.probabilities(wave, RATE_HZ), found.mean(1), atol=0.2, rtol=0)


def test_the_whole_network_over_a_waveform(tmp_path):
    yamnet = YamNet(write(tmp_path / "net.onnx", ("samples",)))
    wave = torch.from_numpy(random.normal(size=WINDOW)).float()
    expected = sigmoid(wave.square().mean().item() * WEIGHT[0] + BIAS)
    np.testing.assert_allclose(yamnet.probabilities(wave, RATE_HZ), expected, atol=1e-5)


def test_other_rates_channels_and_lengths(tmp_path):
    yamnet = YamNet(write(tmp_path / "net.onnx"))
    stereo = torch.sin(2 * torch.pi * 440 * torch.arange(44_100) / 44_100).expand(2, -1)
    long, short = yamnet.probabilities(stereo, 44_100), yamnet.probabilities(stereo[:, :4000], 44_100)
    assert long.shape == short.shape == (521,)
    assert long[0] > short[0]  # a short sound is filled with silence
    assert yamnet.top(stereo, 44_100)[0][1] == long.max()
    assert len(yamnet.classes) == 521


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root, rows = tmp_path_factory.mktemp("clips"), []
    for number, place_s in enumerate((0.4, 1.5, 2.5)):
        clip = 1e-4 * random.standard_normal(4 * RATE_HZ)
        clip[round(place_s * RATE_HZ) :][: RATE_HZ // 2] += 0.3 * random.standard_normal(RATE_HZ // 2)
        (root / f"{number}.flac").write_bytes(encode_flac(clip.clip(-1, 1), RATE_HZ))
        rows.append({"path": f"{number}.flac", "labels": ["Speech"]})
    files.write_jsonl(root / "list.jsonl", rows)
    build(list_sources(root / "list.jsonl"), root / "shards", BuildOptions(audio_rate_hz=RATE_HZ))
    write(root / "yamnet.onnx")
    return root


def data(clips):
    anchors = AnchorConfig(str(clips / "yamnet.onnx"), clip_s=4.0)
    audio = AudioSpec(RATE_HZ, 1.0)
    return DataConfig([str(clips / "shards")], video=None, audio=audio, labels="labels", anchors=anchors, workers=0,
                      augment=None, sample_by="class", batch_size=2)  # fmt: skip


def test_anchors_are_mined_with_it(clips):
    table = AnchorTable.read(mine(data(clips), {"Speech": 0, "/m/09x0r": 0}))
    for row, place_s in enumerate((0.4, 1.5, 2.5)):
        assert table.start_s(row, 0) == pytest.approx(place_s - 0.25, abs=0.12)


def test_a_class_that_it_lacks_is_named(clips):
    with pytest.raises(ConfigError, match="does not know 'Male speech, man speaking'"):
        mine(data(clips), {"Speech": 0, "Male speech, man speaking": 1})


def test_refusals(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        YamNet(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelError, match=r"text.onnx: cannot be read as ONNX"):
        YamNet(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="not a waveform or patches of 96 x 64"):
        YamNet(write(tmp_path / "other.onnx", ("n", 3, 32, 32)))
    few = YamNet(write(tmp_path / "few.onnx", classes=10))
    with pytest.raises(ModelError, match="gives 10 scores, YAMNet has 521"):
        few.probabilities(torch.zeros(WINDOW), RATE_HZ)
