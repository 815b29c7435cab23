"""YAMNet as a tagger, from an ONNX file of the user's own: what is heard, without training a tagger first.

The file may be the network over patches of its log-mel spectrogram, [n, 1, 96, 64] or [n, 96, 64], in float32 or in 8
or 16 bits, or the whole of it over a waveform [S]. Front end: that of the published model (windows of 25 ms every 10
ms, magnitudes, 64 HTK mel bands from 125 to 7500 Hz, the logarithm of one thousandth more).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl.errors import ModelError
from avssl.models.front_ends import htk_triangles
from avssl.separation.ontology import Node, Ontology, audioset
from avssl.separation.rates import Converter
from avssl.separation.tagger import SoundTagger, to_mono

RATE_HZ = 16_000
WINDOW = 400 + 95 * 160  # samples of a patch
_FFT, _HOP, _WINDOW = 512, 160, 400
_PATCH = (96, 64)
_OFFSET = 1e-3

# The classes of AudioSet that YAMNet was not trained on: who speaks or sings, and two that are hardly heard.
LEFT_OUT = frozenset(("/m/05zppz", "/m/02zsn", "/m/04gy_2", "/t/dd00003", "/t/dd00004", "/t/dd00032"))


class YamNet(SoundTagger):
    """A tagger of 521 of AudioSet's 527 classes, on a CPU by onnxruntime (the extra `avssl[onnx]`).

    path: the ONNX file; weights in a file beside it are found there. Raises ModelError naming the file where it cannot
    be read, or takes or gives something else.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.ontology = yamnet_ontology()
        self._scores = _open(self.path, len(self.ontology.classes))

    @property
    def rate_hz(self) -> int:
        return RATE_HZ

    @property
    def window_s(self) -> float:
        """How much sound one answer is about."""
        return WINDOW / RATE_HZ

    def frame_probabilities(self, waveform: Any, rate_hz: int, hop_s: float = 0.48) -> Tensor:
        """Waveforms [S] or [..., C, S] -> [..., windows, 521]: a window of `window_s` every `hop_s`, the first from the
        beginning, none beyond the end (a shorter sound is filled with silence)."""
        mono = to_mono(waveform)
        x = Converter(rate_hz, RATE_HZ).whole(mono.reshape(-1, mono.shape[-1]))
        x = torch.nn.functional.pad(x, (0, max(0, WINDOW - x.shape[-1])))
        windows = x.unfold(-1, WINDOW, max(1, round(hop_s * RATE_HZ)))
        probabilities = self._scores(windows.flatten(0, 1).numpy())
        return torch.from_numpy(probabilities).view(*mono.shape[:-1], windows.shape[1], -1)

    def probabilities(self, waveform: Any, rate_hz: int) -> Tensor:
        """Waveforms [S] or [..., C, S] -> [..., 521]: the mean over windows, as the published model is used."""
        return self.frame_probabilities(waveform, rate_hz).mean(-2)


@functools.cache
def yamnet_ontology() -> Ontology:
    """AudioSet's, with the classes numbered as YAMNet has them: in AudioSet's order, without those of `LEFT_OUT`."""
    number = {node.id: k for k, node in enumerate(n for n in audioset().classes if n.id not in LEFT_OUT)}
    return Ontology(Node(node.id, node.name, number.get(node.id), node.parents) for node in audioset().nodes.values())


def log_mel(windows: np.ndarray) -> np.ndarray:
    """Waveforms [n, WINDOW] -> patches [n, 96, 64] float32."""
    frames = np.lib.stride_tricks.sliding_window_view(windows, _WINDOW, axis=-1)[:, ::_HOP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1], _FFT))
    return np.log(spectrum @ htk_triangles(RATE_HZ, _FFT, _PATCH[1], 125.0, 7500.0) + _OFFSET).astype(np.float32)


def _open(path: Path, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """The file as a function from waveforms [n, WINDOW] to probabilities [n, classes] float32."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ModelError(f"{path}: needs {error.name}, which is not installed; pip install 'avssl[onnx]'") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give YAMNet as an ONNX file")
    try:
        graph = onnx.load(str(path)).graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # both libraries raise many kinds
        raise ModelError(f"{path}: cannot be read as ONNX ({error}); export or download it again") from error
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    shape = tuple(taken.shape)
    if len(session.get_inputs()) != 1 or not (len(shape) == 1 or shape[-2:] == _PATCH):
        raise ModelError(
            f"{path}: takes {[(i.name, i.shape) for i in session.get_inputs()]}, not a waveform or patches of 96 x 64 "
            "alone; give YAMNet's file"
        )
    into, out_of = _Quantised.of(graph, taken.name), _Quantised.of(graph, given.name)
    sigmoid = not _ends_in_sigmoid(graph, given.name)
    one_by_one = len(shape) == 1 or shape[0] == 1

    def run(x: np.ndarray) -> np.ndarray:
        scores = session.run([given.name], {taken.name: into.stored(x, taken.type)})[0]
        return out_of.real(np.asarray(scores)).reshape(-1, scores.shape[-1])

    def scores(windows: np.ndarray) -> np.ndarray:
        x = windows if len(shape) == 1 else log_mel(windows).reshape(-1, *(1,) * (len(shape) - 3), *_PATCH)
        if len(shape) == 1:  # it cuts patches itself: here there is one, or a second that begins in what is left
            found = np.stack([run(one)[0] for one in x])
        else:
            found = np.concatenate([run(part) for part in (x[:, None] if one_by_one else [x])])
        if found.shape[-1] != classes:
            raise ModelError(f"{path}: gives {found.shape[-1]} scores, YAMNet has {classes}; give YAMNet's file")
        return (1 / (1 + np.exp(-found)) if sigmoid else found).astype(np.float32)

    return scores


class _Quantised:
    """How numbers of a network's input or output are stored: value = scale (stored - zero); scale None: as they are."""

    def __init__(self, scale: float | None, zero: float):
        self.scale, self.zero = scale, zero

    @classmethod
    def of(cls, graph: Any, name: str) -> _Quantised:
        """By the node that turns the graph's input into real numbers, or real numbers into its output."""
        from onnx import numpy_helper

        constants = {item.name: item for item in graph.initializer}
        for node in graph.node:
            reads = node.op_type == "DequantizeLinear" and node.input[0] == name
            writes = node.op_type == "QuantizeLinear" and node.output[0] == name
            if reads or writes:
                scale, *zero = (float(numpy_helper.to_array(constants[key])) for key in node.input[1:3])
                return cls(scale, zero[0] if zero else 0.0)
        return cls(None, 0.0)

    def stored(self, x: np.ndarray, kind: str) -> np.ndarray:
        """Real numbers as the network takes them. kind: onnxruntime's word, such as tensor(uint8)."""
        if self.scale is None:
            return x.astype(np.float32)
        whole = np.dtype(kind.removeprefix("tensor(").removesuffix(")"))
        limits = np.iinfo(whole)
        return np.round(x / self.scale + self.zero).clip(limits.min, limits.max).astype(whole)

    def real(self, x: np.ndarray) -> np.ndarray:
        return x if self.scale is None else self.scale * (x.astype(np.float64) - self.zero)


def _ends_in_sigmoid(graph: Any, name: str) -> bool:
    """Are the scores probabilities already? What only stores, renames or averages them is looked through."""
    makers = {output: node for node in graph.node for output in node.output}
    through = {"QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Cast"}
    node = makers.get(name)
    while node is not None and node.op_type in through:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Sigmoid"
