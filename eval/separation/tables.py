"""The tables of docs/separation-evidence.md, from the result file alone."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

from benchmarks.common import markdown_table
from eval.robustness.summary import Results
from eval.separation.song import STEMS

LABELS = {
    "first": "one_hot, before the further steps",
    "one_hot": "one_hot (the class)",
    "soft": "soft (probabilities)",
    "embedding": "embedding",
    "adaptive": "adaptive",
    "shortcut": "shortcut",
}
_DRUMS = ("Bass_drum", "Hi_hat", "Snare_drum")
_QUERIES = {"own": "own sound", "examples": "training examples", "swapped": "swapped"}


def condition_table(results: Results) -> str:
    """Mean SI-SDRi and SDRi over the unseen pairs by kind of query and what it is made from, with the two bounds."""
    rows = []
    for run in results.tree["runs"]:
        end = run["end"]
        means = [fmean(end[query]["si_sdri"]) for query in _QUERIES]
        rows.append(
            [
                LABELS[run["method"]],
                *map(_db, means),
                _db(fmean(end["swapped_other"]["si_sdri"])),
                _db(fmean(end["examples"]["sdri"])),
                _db(median(end["examples"]["si_sdri"])),
            ]
        )
    oracle = results.tree["bounds"]["oracle"]
    rows.append(["*oracle ratio mask*", _db(fmean(oracle["si_sdri"])), "", "", "", _db(fmean(oracle["sdri"])),
                 _db(median(oracle["si_sdri"]))])  # fmt: skip
    head = ["query", *(f"SI-SDRi, {label}" for label in _QUERIES.values())]
    return markdown_table([*head, "swapped, against the other", "SDRi, examples", "median SI-SDRi, examples"], rows)


def class_table(results: Results) -> str:
    """Mean SI-SDRi by class, queries made from training examples."""
    tree = results.tree
    runs = [run for run in tree["runs"] if run["method"] != "first"]
    rows = []
    for label, name in enumerate(tree["classes"]):
        mine = [number for number, found in enumerate(tree["pairs"]["label"]) if found == label]
        values = [run["end"]["examples"]["si_sdri"] for run in runs] + [tree["bounds"]["oracle"]["si_sdri"]]
        rows.append([name.replace("_", " "), *(_db(fmean(column[n] for n in mine)) for column in values)])
    return markdown_table(["class", *(run["method"] for run in runs), "oracle"], rows)


def kind_table(results: Results) -> str:
    """SI-SDRi by what is wanted out of what, drums or tones, mean and median, queries made from training examples."""
    tree = results.tree
    drum = [name in _DRUMS for name in tree["classes"]]
    pairs = list(zip(tree["pairs"]["label"], tree["pairs"]["other_label"], strict=True))
    rows = []
    for wanted, other in ((True, False), (False, True), (False, False), (True, True)):
        mine = [n for n, (label, beside) in enumerate(pairs) if (drum[label], drum[beside]) == (wanted, other)]
        if not mine:
            continue
        row = [f"{_kind(wanted)} out of {_kind(other)}", str(len(mine))]
        for run in tree["runs"]:
            if run["method"] != "first":
                values = [run["end"]["examples"]["si_sdri"][n] for n in mine]
                row.append(f"{_db(fmean(values))} ({_db(median(values))})")
        rows.append([*row, _db(fmean(tree["bounds"]["oracle"]["si_sdri"][n] for n in mine))])
    methods = [run["method"] for run in tree["runs"] if run["method"] != "first"]
    return markdown_table(["pair", "mixtures", *methods, "oracle"], rows)


def _kind(drum: bool) -> str:
    return "drum" if drum else "tones"


def song_table(results: Results) -> str:
    """SI-SDR improvement of each stem of the song, by kind of query."""
    runs = [run for run in results.tree["runs"] if "song" in run]
    if not runs:
        return "(Not measured.)"
    rows = []
    for stem in STEMS:
        improved = [run["song"][stem]["si_sdr"] - run["song"][stem]["mixture_si_sdr"] for run in runs]
        rows.append([stem, _db(runs[0]["song"][stem]["mixture_si_sdr"]), *map(_db, improved)])
    return markdown_table(["stem", "SI-SDR of the mixture", *(f"{run['method']}, SI-SDRi" for run in runs)], rows)


def parts_table(results: Results) -> str:
    """What the separators rest on: the tagger on unseen sounds, and the mining."""
    tagger, anchors = results.tree["tagger"], results.tree["anchors"]
    rows = [
        ["tagger: mAP on unseen sounds", f"{tagger['map']:.3f}", f"{tagger['chance_map']:.3f}"],
        ["tagger: most likely class is right", f"{tagger['accuracy']:.3f}", f"{tagger['chance_map']:.3f}"],
        ["mining: share of the sound in its segment", f"{anchors['mined']:.3f}", f"{anchors['random']:.3f}"],
    ]
    return markdown_table(["", "measured", "chance (random place)"], rows)


def machine_line(results: Results) -> str:
    """Hardware, versions, time."""
    tree = results.tree
    machine, spent = tree["environment"], tree["training_s"]
    times = ", ".join(f"{name} {value / 60:.1f}" for name, value in spent.items())
    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']} (one thread), torch {machine['packages']['torch']},"
        f" commit `{machine['commit']}`, {machine['date'][:10]}. Minutes of the trainings, beside"
        f" other work: {times}; {sum(spent.values()) / 60:.0f} in all."
    )


def _db(value: Any) -> str:
    return f"{value:.1f}"
