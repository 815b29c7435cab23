"""The separator's call: shapes, rates, queries of every kind, chunks without seams, and the published way."""

import math

import pytest
import torch
from tiny_separators import CLASSES, RATE_HZ, all_pass, save_separator, save_tagger, separator_config, tiny_separator

import avssl
from avssl.errors import ConfigError, ModelError, UsageError
from avssl.models.folder import load
from avssl.models.query_net import keep_classes, one_hot
from avssl.separation.options import SeparationOptions
from avssl.separation.separator import Separator

PUBLISHED = SeparationOptions(overlap=0.0, threshold=0.0)


def tones(rate_hz, seconds=1.3, channels=2):
    time = torch.arange(round(rate_hz * seconds), dtype=torch.float64) / rate_hz
    return torch.stack([torch.sin(2 * math.pi * hz * time) / 2 for hz in (440, 970, 1500)[:channels]]).float()


@pytest.fixture(scope="module")
def separator():
    return Separator(tiny_separator())


@pytest.fixture(scope="module")
def passing():
    return Separator(all_pass(tiny_separator()))


class TestFolders:
    def test_a_separator_comes_back(self, tmp_path):
        model = tiny_separator("embedding", class_features=True)
        loaded = avssl.load(save_separator(tmp_path / "m", model))
        assert isinstance(loaded, Separator) and loaded.config == model.config
        torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert [node.name for node in loaded.ontology.classes] == ["Guitar", "Flute, whistle", "Dog bark"]

    def test_a_tagger_comes_back_and_names_sounds(self, tmp_path):
        tagger = avssl.load(save_tagger(tmp_path / "t"))
        sound = tones(16000, channels=2)
        assert tagger.classes == ["Guitar", "Flute, whistle", "Dog bark"]
        probabilities = tagger.probabilities(sound, 16000)
        assert probabilities.shape == (3,)
        torch.testing.assert_close(tagger.probabilities(sound[None].repeat(2, 1, 1), 16000)[1], probabilities)
        assert tagger.top(sound, 16000, 1)[0][1] == probabilities.max().item()
        assert tagger.probabilities(torch.zeros(5), 16000).shape == (3,)  # any length

    def test_another_kind_is_refused_in_one_sentence(self, tmp_path):
        folder = save_tagger(tmp_path / "t")
        with pytest.raises(ModelError, match="holds a model of the kind 'tagger', but 'separator' is needed"):
            load(folder, kind="separator")
        with pytest.raises(UsageError, match="compute in float32"):
            load(folder, dtype="bfloat16")

    def test_what_does_not_fit_together_is_refused(self):
        with pytest.raises(ConfigError, match="they must be equal"):
            config = separator_config()
            config.query.features = 7
            config.__post_init__()
        with pytest.raises(ConfigError, match="there is no `tagger`"):
            separator_config(tagger=None)
        with pytest.raises(ConfigError, match="is 3, but there are 1 classes"):
            separator_config(classes=CLASSES[:3])


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 11025, 44100])
@pytest.mark.parametrize("shape", [(1,), (701,), (3, 6000)])
def test_shape_and_rate_are_kept(separator, rate_hz, shape):
    mixture = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert separator.separate(mixture, rate_hz, "Guitar").shape == shape
    assert separator.separate(mixture.numpy(), rate_hz, ["Guitar", "Dog bark"]).shape == (2, *shape)


def test_the_published_way_is_chunk_by_chunk(separator):
    """Zero overlap, the last chunk filled with zeros, each under its own probabilities with all but the class at 0."""
    mixture = tones(RATE_HZ, 1.3, 1)[0]
    padded = torch.cat([mixture, torch.zeros(3 * 4000 - len(mixture))]).view(3, 4000)
    with torch.inference_mode():
        chunks = []
        for chunk in padded:
            probabilities = separator.model.tagger(chunk[None]).probabilities
            chunks.append(separator.model.separator(chunk[None], keep_classes(probabilities, [2]))[0])
    expected = torch.cat(chunks)[: len(mixture)]
    found = separator.separate(mixture, RATE_HZ, "Dog bark", options=PUBLISHED)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44100])
def test_an_all_pass_query_leaves_no_seam(passing, rate_hz):
    mixture = tones(rate_hz, 2.2)
    found = passing.separate(mixture, rate_hz, "Guitar")
    inside = slice(rate_hz // 20, -rate_hz // 20)  # the ends of the recording are no borders of chunks
    assert (found - mixture)[:, inside].abs().max() < 1e-4


def test_channels_are_separated_under_one_condition(separator):
    mixture = tones(RATE_HZ)
    both = separator.separate(mixture, RATE_HZ, "Guitar")
    swapped = separator.separate(mixture.flip(0), RATE_HZ, "Guitar")
    torch.testing.assert_close(both, swapped.flip(0), rtol=0, atol=1e-6)


def test_chunks_as_they_come_are_the_whole(separator):
    mixture = tones(44100, 2.0)
    running = separator.begin(44100, ["Guitar", "Dog bark"], SeparationOptions(batch_size=1))
    came_in, gone_out, parts, late_s = 0, 0, [], []

    def blocks():
        nonlocal came_in
        for block in mixture.split(1000, dim=1):
            came_in += block.shape[1]
            yield block

    for part in running.run(blocks()):
        late_s.append((came_in - gone_out) / 44100)
        gone_out += part.shape[-1]
        parts.append(part)
    whole = separator.separate(mixture, 44100, ["Guitar", "Dog bark"])
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=0, atol=1e-5)
    assert len(parts) > 3
    assert max(late_s[:-1]) <= running.latency_s + 1000 / 44100  # the last one had to wait for the end
    assert running.latency_s == pytest.approx(0.5, abs=0.05)


def test_sources_and_residual_sum_to_the_mixture(separator):
    mixture = tones(22050)
    sources = separator.separate(mixture, 22050, ["Guitar", "Dog bark"], consistent="energy")
    torch.testing.assert_close(sources.sum(0), mixture, rtol=0, atol=1e-6)


class TestQueries:
    def test_a_wrong_query_changes_the_result(self):
        """one_hot, embedding and adaptive conditions each reach the network."""
        for kind in ("one_hot", "embedding", "adaptive", "shortcut"):
            separator = Separator(tiny_separator(kind, class_features=True))
            found = separator.separate(tones(RATE_HZ)[0], RATE_HZ, ["Guitar", "Dog bark"])
            assert (found[0] - found[1]).abs().max() > 1e-5, kind

    def test_a_kind_above_classes_is_all_of_them(self, separator):
        assert separator.query_of_class("music").classes == {0, 1}
        assert separator.query_of_class("whistle").classes == {1}
        assert separator.query_of_class("/t/dog").classes == {2}
        with pytest.raises(UsageError, match=r"there is no class 'Guitr'; did you mean 'Guitar'\?"):
            separator.separate(torch.zeros(100), RATE_HZ, "Guitr")

    def test_an_example_is_the_mean_over_chunks_then_files(self):
        separator = Separator(tiny_separator("embedding"))
        first, second = tones(RATE_HZ, 1.0, 2)
        query = separator.query_of_sounds([(first, RATE_HZ), (second[:4000], RATE_HZ)])
        with torch.inference_mode():
            embed = [separator.model.tagger(chunk[None]).embedding[0] for chunk in (first[:4000], first[4000:])]
            other = separator.model.tagger(second[None, :4000]).embedding[0]
        torch.testing.assert_close(query.condition, ((embed[0] + embed[1]) / 2 + other) / 2, rtol=1e-4, atol=1e-6)

    def test_silences_of_an_example_are_left_out(self):
        separator = Separator(tiny_separator("embedding"))
        sound = tones(RATE_HZ, 0.5, 1)[0]
        silent = torch.zeros(4000)
        padded = separator.query_of_sounds([(torch.cat([silent, sound, silent]), RATE_HZ)])
        torch.testing.assert_close(padded.condition, separator.query_of_sounds([(sound, RATE_HZ)]).condition)
        with pytest.raises(UsageError, match="no sound louder than"):
            separator.query_of_sounds([(silent, RATE_HZ)])

    def test_pictures_ask_where_the_separator_learned_from_them(self, separator):
        seeing = Separator(tiny_separator("embedding", "two_tower"))
        clip = torch.randint(0, 256, (2, 8, 72, 96, 3), dtype=torch.uint8)
        query = seeing.query_of_video(clip)
        torch.testing.assert_close(query.condition, seeing.encoder.encode_video(clip).mean(0))
        assert seeing.separate(tones(RATE_HZ), RATE_HZ, query).shape == tones(RATE_HZ).shape
        assert seeing.query_of_sounds([(tones(RATE_HZ), RATE_HZ)]).condition.shape == (16,)
        with pytest.raises(UsageError, match="conditions from its tagger, so pictures tell it nothing"):
            separator.query_of_video(clip)

    def test_vectors_of_another_model(self):
        separator = Separator(tiny_separator("embedding", "vector"))
        query = separator.query_of_vector(torch.ones(12))
        assert separator.separate(torch.randn(3000), RATE_HZ, query).shape == (3000,)
        with pytest.raises(UsageError, match="an example sound tells it nothing"):
            separator.query_of_sounds([(tones(RATE_HZ), RATE_HZ)])
        with pytest.raises(UsageError, match="query takes 12"):
            separator.query_of_vector(torch.ones(11))

    def test_a_class_without_features_is_refused(self):
        with pytest.raises(UsageError, match="give an example sound"):
            Separator(tiny_separator("embedding")).query_of_class("Guitar")

    def test_one_hot_of_a_class_is_that_condition(self):
        separator = Separator(tiny_separator("one_hot", tagger=None))
        mixture = tones(RATE_HZ, 0.5, 1)
        with torch.inference_mode():
            expected = separator.model.separator(mixture, one_hot([2], 3))
        torch.testing.assert_close(separator.separate(mixture, RATE_HZ, "Dog bark"), expected, rtol=0, atol=1e-6)


class TestWhatIsNotThere:
    def test_chunks_below_the_threshold_are_silent_and_scored(self):
        model = tiny_separator()
        with torch.no_grad():
            model.tagger.fc_audioset.bias[0] = -6.0
        separator = Separator(all_pass(model))
        mixture = tones(RATE_HZ)
        running = separator.begin(RATE_HZ, ["Guitar", "Dog bark"])
        guitar, dog = torch.cat(list(running.run([mixture])), dim=-1)
        assert not guitar.any() and dog.any()
        assert running.scores == pytest.approx([torch.tensor(-6.0).sigmoid().item(), 0.9], abs=1e-4)
        assert running.active_chunks[0] == 0 < running.active_chunks[1]
        again = separator.separate(mixture, RATE_HZ, "Guitar", options=SeparationOptions(threshold=0))
        assert again.any()

    def test_found_nodes_only_are_separated(self):
        model = tiny_separator()
        with torch.no_grad():
            model.tagger.fc_audioset.bias[:2] = -6.0
        separator = Separator(model)
        heard = separator.listen([tones(44100)], 44100)
        found = separator.find(heard, [1, 2, 3])
        assert [(one.node.name, query.classes) for one, query in found] == [
            ("All sounds", {0, 1, 2}),
            ("Dog bark", {2}),
        ]
        running = separator.begin(44100, [query for _, query in found], probabilities=heard)
        torch.testing.assert_close(
            torch.cat(list(running.run([tones(44100)])), dim=-1)[1],
            separator.separate(tones(44100), 44100, "Dog bark"),
            rtol=0,
            atol=1e-6,
        )


@pytest.mark.parametrize(
    "mixture", [torch.zeros(0), torch.zeros(2, 0), torch.zeros(1, 2, 3), torch.zeros(5, dtype=torch.int16)]
)
def test_other_mixtures_are_refused(separator, mixture):
    with pytest.raises(UsageError, match=r"expected a floating-point mixture \[S\] or \[C, S\]"):
        separator.separate(mixture, RATE_HZ, "Guitar")
