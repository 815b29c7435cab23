"""Which settings go together: every contradiction is one sentence with its keys and its cure."""

import itertools

import pytest
from task_tools import AGREEMENT, SOFT, STEPS, TEMPERATURES, WEIGHTS, make_config, make_task, run

from avssl import config as configuration
from avssl.errors import ConfigError
from avssl.tasks.xid_config import XIDConfig

BANK_WEIGHTS = {**WEIGHTS, "statistics": "bank"}


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"negatives": "all", "targets": "batch"}, ["task.negatives", "task.targets"]),
        ({"bank_sharded": True, "targets": "queue"}, ["task.bank_sharded", "task.targets"]),
        ({"bank_sharded": True, "negatives": "all"}, ["task.bank_sharded", "task.negatives"]),
        ({"within": 0.5, "targets": "batch"}, ["task.within", "task.targets"]),
        ({"weights": BANK_WEIGHTS, "targets": "batch"}, ["task.weights.statistics", "task.targets"]),
        ({"weights": BANK_WEIGHTS, "targets": "queue"}, ["task.weights.statistics", "task.targets"]),
        ({"soft": SOFT, "loss": "nce"}, ["task.soft", "task.loss"]),
        ({"soft": SOFT, "loss": "siglip"}, ["task.soft", "task.loss"]),
        ({"soft": SOFT, "cross": 0.0, "within": 1.0}, ["task.soft", "task.cross"]),
        ({"soft": {"neighbor_own": True}}, ["task.soft.neighbor_own", "task.soft.strategy"]),
        ({"hard_share": 0.5, "loss": "nce"}, ["task.hard_share", "task.loss"]),
        ({"hard_share": 0.5, "soft": SOFT}, ["task.hard_share", "task.soft"]),
        ({"temperatures": TEMPERATURES, "loss": "nce"}, ["task.temperatures", "task.loss"]),
        ({"temperatures": TEMPERATURES, "soft": SOFT}, ["task.temperatures", "task.soft"]),
        ({"temperatures": TEMPERATURES, "hard_share": 0.5}, ["task.temperatures", "task.hard_share"]),
        ({"temperatures": TEMPERATURES, "within": 0.5}, ["task.temperatures", "task.within"]),
        ({"agreement": AGREEMENT, "targets": "batch"}, ["task.agreement", "task.targets"]),
        ({"agreement": AGREEMENT, "negatives": "all"}, ["task.agreement", "task.negatives"]),
        ({"agreement": AGREEMENT, "bank_sharded": True}, ["task.agreement", "task.bank_sharded"]),
        ({"agreement": AGREEMENT, "loss": "siglip"}, ["task.agreement", "task.loss"]),
        ({"agreement": {"negatives": 7}}, ["task.agreement.negatives", "task.negatives"]),
        ({"cross": 0.0}, ["task.cross", "task.within"]),
        ({"cross": -1.0, "within": 2.0}, ["task.cross", "task.within"]),
    ],
)
def test_contradictions(options, keys):
    with pytest.raises(ConfigError) as raised:
        make_config(**options)
    message = str(raised.value)
    assert all(key in message for key in keys)
    assert "\n" not in message
    assert ";" in message or "must" in message


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"temperature": 0.0}, "task.temperature"),
        ({"negatives": 0}, "task.negatives"),
        ({"negatives": "some"}, "task.negatives"),
        ({"negatives": 2.5}, "task.negatives"),
        ({"bank_momentum": 1.0}, "task.bank_momentum"),
        ({"bank_dtype": "float64"}, "task.bank_dtype"),
        ({"hard_share": 0.0}, "task.hard_share"),
        ({"hard_share": 1.5}, "task.hard_share"),
        ({"queue": {"size": 0}}, "task.queue.size"),
        ({"queue": {"momentum": 1.0}}, "task.queue.momentum"),
        ({"weights": {"minimum": 1.5}}, "task.weights.minimum"),
        ({"weights": {"sharpness": 0.0}}, "task.weights.sharpness"),
        ({"weights": {"every_passes": 0.0}}, "task.weights.every_passes"),
        ({"weights": {"momentum": -0.1}}, "task.weights.momentum"),
        ({"soft": {"share": 1.1}}, "task.soft.share"),
        ({"soft": {"temperature": 0.0}}, "task.soft.temperature"),
        ({"soft": {"agreement_temperature": 0.0}}, "task.soft.agreement_temperature"),
        ({"soft": {"strategy": "circle"}}, "task.soft.strategy"),
        ({"agreement": {"positives": 0}}, "task.agreement.positives"),
        ({"agreement": {"negatives": 0}}, "task.agreement.negatives"),
        ({"agreement": {"negatives": 2, "every_passes": 0.0}}, "task.agreement.every_passes"),
        ({"agreement": {"negatives": 2, "coefficient": 0.0}}, "task.agreement.coefficient"),
        ({"temperatures": {"start": 0.1}}, "task.temperatures: start"),
        ({"temperatures": {"average": 0.0}}, "task.temperatures.average"),
        ({"temperatures": {"smooth": 1.1}}, "task.temperatures.smooth"),
        ({"temperatures": {"rate": -1.0}}, "task.temperatures.rate"),
    ],
)
def test_values_out_of_range(options, key):
    with pytest.raises(ConfigError, match=f"^{key}"):
        make_config(**options)


def test_what_is_no_contradiction_trains():
    """Every combination of the larger switches either is refused or computes a finite loss."""
    switches = {
        "loss": ["softmax", "nce", "siglip"],
        "targets": ["bank", "batch", "queue"],
        "negatives": [6, "all"],
        "bank_sharded": [False, True],
        "within": [0.0, 0.5],
        "soft": [None, SOFT],
        "agreement": [None, AGREEMENT],
        "temperatures": [None, TEMPERATURES],
        "hard_share": [None, 0.5],
    }
    trained = 0
    for values in itertools.product(*switches.values()):
        options = dict(zip(switches, values, strict=True))
        options["weights"] = {**WEIGHTS, "statistics": "bank" if options["targets"] == "bank" else "batch"}
        try:
            make_config(**options, queue={"size": 7})
        except ConfigError:
            continue
        metrics = run(make_task(**options, queue={"size": 7}), STEPS[:2])
        assert all(abs(value) < 100 for value in metrics[1].values()), options
        trained += 1
    assert trained == 39 + 11 + 9  # softmax, nce, siglip: counted by hand


def test_the_command_line_gives_numbers_words_and_sections():
    tree = {}
    for key, text in (("negatives", "all"), ("weights.minimum", "0.5"), ("soft", "{}"), ("queue.size", "9")):
        configuration.override(XIDConfig, tree, key, text)
    config = configuration.build(XIDConfig, tree)
    assert (config.negatives, config.weights.minimum, config.soft.strategy, config.queue.size) == (
        "all",
        0.5,
        "cycle",
        9,
    )
    configuration.override(XIDConfig, tree, "negatives", "16")
    configuration.override(XIDConfig, tree, "soft", "null")
    config = configuration.build(XIDConfig, tree)
    assert (config.negatives, config.soft) == (16, None)


def test_a_config_survives_being_written_out():
    config = make_config(weights=WEIGHTS, soft=SOFT, agreement=AGREEMENT)
    assert configuration.build(XIDConfig, configuration.plain(config), "task") == config


@pytest.mark.parametrize("positives", [12, 13])
def test_too_few_rows_to_mine(positives):
    agreement = {**AGREEMENT, "positives": positives}
    if positives == 12:  # 14 rows: itself, 12 positives, one negative
        make_task(agreement=agreement)
        return
    with pytest.raises(ConfigError, match=r"task.agreement.positives is 13, .* not 14; lower it"):
        make_task(agreement=agreement)
