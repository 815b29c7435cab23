"""The tables of docs/robust-xid.md, from result files alone."""

from __future__ import annotations

from benchmarks.common import markdown_table
from eval.robustness.summary import Results, Spread

COLUMNS = {
    "probe_video": "probe, picture",
    "probe_audio": "probe, sound",
    "class_at_1": "class R@1",
    "instance_at_1": "R@1",
    "instance_at_10": "R@10",
    "auroc": "AUROC",
    "soft_class": "soft mass on own class",
}
_BASES = ("xid", "weighted", "robust", "robust_bootstrapping")  # what the ablations change
RECOVERED = ("probe_video", "class_at_1", "instance_at_10")


def world_table(results: Results, world: str) -> str:
    """Every method in one world: mean ± deviation over seeds; AUROC and soft mass where the method has them."""
    methods = [method for method in results.methods if results.runs(world, method)]
    shown = [key for key in COLUMNS if any(results.spread(world, method, key) for method in methods)]
    rows = []
    for method in methods:
        spreads = [results.spread(world, method, key) for key in shown]
        rows.append([results.methods[method], *("" if spread is None else cell(spread) for spread in spreads)])
    return markdown_table(["method", *(COLUMNS[key] for key in shown)], rows)


def chance_line(results: Results, world: str) -> str:
    """What chance reaches in a world, as a sentence."""
    method = next(method for method in results.methods if results.runs(world, method))
    chances = [
        f"{COLUMNS[key]} {spread.mean:.3f}"
        for key in COLUMNS
        if (spread := results.spread(world, method, f"{key}_chance")) is not None
    ]
    soft = [x for m in results.methods if (x := results.spread(world, m, "soft_class_chance")) is not None]
    if soft:
        chances.append(f"soft mass {soft[0].mean:.3f}")
    seeds = max(len(results.runs(world, method)) for method in results.methods)
    return f"Chance: {', '.join(chances)}. {seeds} seeds."


def recovery_table(results: Results, clean: str, noisy: str) -> str:
    """How much of what xID loses each method wins back, in percent, with 95 % intervals."""
    rows = []
    for method, label in results.methods.items():
        if method == "xid" or not results.runs(noisy, method):
            continue
        shares = [results.recovered(clean, noisy, method, measure) for measure in RECOVERED]
        rows.append(
            [label, *(f"{100 * share:.0f} ({100 * low:.0f} to {100 * high:.0f})" for share, low, high in shares)]
        )
    return markdown_table(["method", *(f"{COLUMNS[measure]}, %" for measure in RECOVERED)], rows)


def change_table(main: Results, why: Results, noisy: str) -> str:
    """What single changes do at `noisy`, under the same methods of the main study."""
    columns = {"class_at_1": "end", "instance_at_10": "end", "auroc": "end", "soft_class": "end"}
    header = ["change", *(COLUMNS[key] for key in columns), "AUROC after the first phase", "seeds"]
    rows = []
    for results in (main, why):
        for world in [noisy] if results is main else list(results.worlds):
            for method, label in results.methods.items():
                if not (runs := results.runs(world, method)) or (results is main and method not in _BASES):
                    continue
                spreads = [results.spread(world, method, key, when) for key, when in columns.items()]
                spreads.append(results.spread(world, method, "auroc", "warm_up"))
                name = label if world == noisy else f"{label}, {results.worlds[world]}"
                rows.append([name, *("" if spread is None else cell(spread) for spread in spreads), len(runs)])
    return markdown_table(header, rows)


def asked_table(why: Results, noisy: str) -> str:
    """Of each soft method: how much of its mass lies on the query's own class, for matched and for mismatched pairs."""
    keys = {"soft_class": "all pairs", "soft_class_right": "matched pairs", "soft_class_wrong": "mismatched pairs"}
    rows = []
    for method, label in why.methods.items():
        spreads = [why.spread(noisy, method, key) for key in keys]
        if any(spreads):
            rows.append([label, *("" if spread is None else cell(spread) for spread in spreads)])
    return markdown_table(["method", *keys.values()], rows)


def machine_line(results: Results) -> str:
    """What made the numbers, where, and how long it took, as a sentence."""
    tree, machine = results.tree, results.tree["environment"]
    return (
        f"{len(tree['runs'])} runs in {tree['wall_s'] / 60:.0f} minutes, {tree['processes']} processes of one thread "
        f"on {machine['cores']} cores ({machine['cpu']}, no GPU); torch {machine['packages']['torch']}, commit "
        f"{machine['commit']}, {machine['date'][:10]}."
    )


def cell(spread: Spread) -> str:
    """Percent, with the deviation over seeds."""
    return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}"
