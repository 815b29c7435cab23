"""How well the trained networks do on sounds that they have never heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl.evaluation.average_precision import average_precision
from avssl.models.folder import load_network
from avssl.models.query_net import mean_query, one_hot
from avssl.models.separator_model import SeparatorModel
from avssl.models.stft import Stft
from avssl.separation.metrics import sdr, si_sdr
from avssl.separation.overlap_add import Chunking, overlap_add
from eval.separation.song import STEMS, read_stems
from eval.separation.sounds import Pairs, Sound, Sounds, loud_cut
from eval.separation.study import Study

_BATCH = 20


@torch.inference_mode()
def judge_tagger(folder: Path, sounds: Sounds, study: Study) -> dict[str, Any]:
    """Mean average precision over classes on the held-out sounds alone, and how many are named rightly first."""
    net = load_network(folder, "tagger")[0].eval()
    random = np.random.default_rng(study.seed)
    samples = round(study.weak.piece_s * study.rate_hz)
    clips = torch.from_numpy(np.stack([loud_cut(s.waveform, samples, random) for s in sounds.held_out]))
    labels = torch.tensor([sound.label for sound in sounds.held_out])
    scores = net(clips).probabilities
    values = average_precision(scores, one_hot(labels, len(sounds.classes)))
    return {
        "map": float(values.mean()),
        "accuracy": float((scores.argmax(1) == labels).float().mean()),
        "sounds": len(labels),
        "chance_map": float(one_hot(labels, len(sounds.classes)).mean()),
    }


@torch.inference_mode()
def judge_bounds(pairs: Pairs, study: Study) -> dict[str, Any]:
    """The mixture itself, and the ratio mask made from the true sounds with the separator's own transform."""
    settings = study.separator["model"]["separator"]
    stft = Stft(settings["fft"], settings["hop"])
    target, other = stft(pairs.target).abs(), stft(pairs.other).abs()
    mask = target / (target + other).clamp(min=1e-9)
    oracle = stft.inverse(stft(pairs.mixture) * mask, pairs.mixture.shape[-1])
    return {
        "mixture": {"si_sdr": _values(si_sdr(pairs.mixture, pairs.target))},
        "oracle": improvements(oracle, pairs),
    }


@torch.inference_mode()
def judge_separator(folder: Path, pairs: Pairs, sounds: Sounds, study: Study) -> dict[str, Any]:
    """Improvements by query.

    own: made from the target itself, as in training; examples: from the training sounds of the class; swapped: from the
    training sounds of the other class, judged against the same target; swapped_other: the same output, judged against
    that other sound. A class query has no sound: own and examples are the class.
    """
    net = load_network(folder, "separator")[0].eval()
    table = class_features(net, sounds, study)
    queries = {
        "own": table[pairs.label] if net.config.query.kind == "one_hot" else features(net, pairs.target),
        "examples": table[pairs.label],
        "swapped": table[pairs.other_label],
    }
    found, done = {}, {}
    for name, query in queries.items():
        parts = zip(pairs.mixture.split(_BATCH), query.split(_BATCH), strict=True)
        done[name] = torch.cat([net(mixture, part) for mixture, part in parts])
        found[name] = improvements(done[name], pairs)
    turned = pairs._replace(target=pairs.other, other=pairs.target)
    found["swapped_other"] = improvements(done["swapped"], turned)
    return found


@torch.inference_mode()
def judge_song(folder: Path, media: Path, study: Study) -> dict[str, Any]:
    """The song's stems from their sum, each asked for by an example of the same stem from another part of the song.

    The first half of the chosen part is separated, examples come from the second half.
    """
    net = load_network(folder, "separator")[0].eval()
    stems = torch.from_numpy(read_stems(media, study.rate_hz, study.song_s))
    half = stems.shape[1] // 2
    heard, examples = stems[:, :half], stems[:, half:]
    mixture = heard.sum(0)
    window = round(net.config.window_s * study.rate_hz)
    chunking = Chunking(window, window // 2)
    found = {}
    for name, stem, example in zip(STEMS, heard, examples, strict=True):
        chunks = example[: len(example) // window * window].view(-1, window)
        loud = chunks.square().mean(1) > 0.1 * chunks.square().mean()
        query = mean_query([features(net, chunks[loud])])
        estimate = overlap_add(mixture, lambda windows, query=query: net(windows, query), chunking, batch=_BATCH)
        found[name] = {
            "mixture_si_sdr": float(si_sdr(mixture, stem)),
            "si_sdr": float(si_sdr(estimate, stem)),
            "mixture_sdr": float(sdr(mixture, stem)),
            "sdr": float(sdr(estimate, stem)),
        }
    return found


def features(net: SeparatorModel, sounds: Tensor) -> Tensor:
    """What the query of each sound [N, S] is made from."""
    assert net.tagger is not None
    return net.query.features(net.tagger(sounds))


def class_features(net: SeparatorModel, sounds: Sounds, study: Study) -> Tensor:
    """[classes, features]: of each class, the mean over its training sounds; of a class query, the class."""
    count = len(sounds.classes)
    if net.config.query.kind == "one_hot":
        return one_hot(torch.arange(count), count)
    window = round(net.config.window_s * study.rate_hz)
    random = np.random.default_rng(study.seed)

    def chunks(sound: Sound) -> Tensor:
        return torch.from_numpy(np.stack([loud_cut(sound.waveform, window, random) for _ in range(3)]))

    table = []
    for label in range(count):
        examples = [features(net, chunks(sound)) for sound in sounds.train if sound.label == label]
        table.append(mean_query(examples))
    return torch.stack(table)


def improvements(estimate: Tensor, pairs: Pairs) -> dict[str, list[float]]:
    """SDRi and SI-SDRi of every mixture, in dB."""
    found: dict[str, list[float]] = {}
    metrics: Sequence[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = (("sdri", sdr), ("si_sdri", si_sdr))
    for name, metric in metrics:
        found[name] = _values(metric(estimate, pairs.target) - metric(pairs.mixture, pairs.target))
    return found


def _values(x: Tensor) -> list[float]:
    return [round(value, 3) for value in x.tolist()]
