"""The ontology table, finding classes by name, subtrees and levels; what was heard, as a tree."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avssl.errors import ConfigError, UsageError
from avssl.separation.hierarchy import as_tree, find_sounds, node_scores
from avssl.separation.ontology import Node, Ontology, audioset, flat_ontology, read_ontology


def small() -> Ontology:
    """animal > dog > (bark, howl), animal > wolf > howl; things > alarm."""
    return Ontology(
        [
            Node("animal", "Animal", None, ()),
            Node("dog", "Dog", 0, ("animal",)),
            Node("bark", "Bark, woof", 1, ("dog",)),
            Node("wolf", "Wolf", None, ("animal",)),
            Node("howl", "Howl", 2, ("wolf", "dog")),
            Node("things", "Things", None, ()),
            Node("alarm", "Alarm", 3, ("things",)),
            Node("empty", "Nothing in it", None, ("things",)),
        ]
    )


def test_audioset_has_the_published_counts():
    ontology = audioset()
    assert len(ontology.nodes) == 632 and len(ontology.classes) == 527
    assert [node.name for node in ontology.roots] == [
        "Human sounds",
        "Animal",
        "Music",
        "Natural sounds",
        "Sounds of things",
        "Source-ambiguous sounds",
        "Channel, environment and background",
    ]
    levels = {level: ontology.at_level(level) for level in (1, 2, 3)}
    assert {level: len(nodes) for level, nodes in levels.items()} == {1: 7, 2: 41, 3: 251}
    subtrees = [ontology.classes_under(node.id, tree=True) for nodes in levels.values() for node in nodes]
    assert len(subtrees) - len(set(subtrees)) == 2
    assert frozenset().union(*subtrees[:7]) == set(range(527))  # every class once, under one root
    assert sum(map(len, subtrees[:7])) == 527
    names = {0: "Speech", 72: "Animal", 137: "Music", 300: "Vehicle", 526: "Field recording"}
    assert {number: ontology.classes[number].name for number in names} == names


def test_subtrees_along_all_parents_and_along_the_tree():
    ontology = small()
    assert ontology.classes_under("dog") == {0, 1, 2}
    assert ontology.classes_under("dog", tree=True) == {0, 1}
    assert ontology.classes_under("wolf", tree=True) == {2}
    assert ontology.classes_under("animal") == ontology.classes_under("animal", tree=True) == {0, 1, 2}
    assert [node.id for node in ontology.children("dog")] == ["bark"]
    assert [ontology.level(node_id) for node_id in ("animal", "dog", "bark", "howl")] == [1, 2, 3, 3]
    assert [node.id for node in ontology.at_level(2)] == ["dog", "wolf", "alarm"]  # the empty one is left out


def test_classes_are_found_by_name_and_by_id():
    ontology = audioset()
    assert ontology.find("speech").class_index == 0
    assert ontology.find("/m/09x0r").name == "Speech"
    assert ontology.find("man speaking").name == "Male speech, man speaking"
    with pytest.raises(UsageError, match="Speech"):
        ontology.find("Speach")
    doubled = Ontology([Node("a", "Bell, ring", 0, ()), Node("b", "Tone, ring", 1, ())])
    with pytest.raises(UsageError, match=r"several: 'Bell, ring' \(a\), 'Tone, ring' \(b\)"):
        doubled.find("ring")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node("a", "A", 0, ("b",))], "no row"),
        ([Node("a", "A", 0, ("b",)), Node("b", "B", 1, ("a",))], "above itself"),
        ([Node("a", "A", 0, ()), Node("a", "B", 1, ())], "appears twice"),
        ([Node("a", "A", 0, ()), Node("b", "B", 0, ())], "class 0 appears twice"),
        ([Node("a", "A", 1, ())], "not numbered"),
    ],
)
def test_a_broken_ontology_is_refused(nodes, message):
    with pytest.raises(ConfigError, match=message):
        Ontology(nodes)


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "sounds.tsv"
    path.write_text('id\tname\tclass\tparents\nx\tThe "big" one, x\t0\t\ny\tY\t1\tx\n')
    ontology = read_ontology(path)
    assert ontology.classes[0].name == 'The "big" one, x' and ontology.classes_under("x") == {0, 1}
    path.write_text("id\tname\tclass\tparents\nx\tX\tfirst\t\n")
    with pytest.raises(ConfigError, match=r"sounds\.tsv, row 2"):
        read_ontology(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_ontology(tmp_path / "gone.tsv")
    assert [node.name for node in flat_ontology(["cello", "flute"]).at_level(1)] == ["cello", "flute"]


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=4))
def test_a_node_scores_as_its_best_class(rows):
    ontology, probabilities = small(), torch.tensor(rows)
    nodes = list(ontology.nodes.values())
    scores = node_scores(probabilities, ontology, nodes)
    for column, node in enumerate(nodes):
        members = ontology.classes_under(node.id, tree=True)
        expected = [max((row[k] for k in members), default=0.0) for row in rows]
        assert scores[:, column].tolist() == pytest.approx(expected)


def test_found_sounds_are_a_tree_and_nothing_else_is_in_it():
    ontology = small()
    probabilities = torch.tensor([[0.1, 0.3, 0.1, 0.0], [0.1, 0.1, 0.9, 0.0]])  # bark, then howl; no alarm
    found = find_sounds(probabilities, ontology)
    assert [one.node.id for one in found] == ["animal", "dog", "wolf", "bark", "howl"]
    assert {one.node.id: one.chunks for one in found} == {
        "animal": (0, 1),
        "dog": (0,),
        "wolf": (1,),
        "bark": (0,),
        "howl": (1,),
    }
    [animal] = json.loads(json.dumps(as_tree(found, ontology)))
    assert animal["name"] == "Animal" and animal["score"] == pytest.approx(0.9)
    assert [child["id"] for child in animal["children"]] == ["wolf", "dog"]  # most likely first
    assert animal["children"][0]["children"][0]["id"] == "howl"
    [animal] = as_tree(find_sounds(probabilities, ontology, levels=(1, 3)), ontology)
    assert [child["id"] for child in animal["children"]] == ["howl", "bark"]
    assert find_sounds(probabilities, ontology, threshold=0.95) == []
    assert [one.node.id for one in find_sounds(torch.full((1, 4), 0.2), ontology, levels=(1,))] == ["animal", "things"]


def test_probabilities_of_other_classes_are_refused():
    with pytest.raises(UsageError, match="527 probabilities, but 4 classes"):
        find_sounds(torch.zeros(1, 527), small())
