"""A trained separator as users meet it: a mixture and a query in, the sound that the query asks for out.

separator = avssl.load("FOLDER")
guitar = separator.separate(mixture, rate_hz, "Guitar")                      # as the mixture: [S] or [C, S]
like_this = separator.query_of_sounds([(example, example_rate_hz)])
source = separator.separate(mixture, rate_hz, like_this)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.models.av_model import AVModel
from avssl.models.query_net import mean_query, one_hot
from avssl.models.separator_model import SeparatorModel
from avssl.separation.consistency import make_consistent
from avssl.separation.hierarchy import Found, find_sounds
from avssl.separation.ontology import Node, Ontology, ontology_of
from avssl.separation.options import SeparationOptions
from avssl.separation.queries import Query, full_chunks, likely_classes, without_silence
from avssl.separation.rates import Converter
from avssl.separation.stream import SeparationStream, listen
from avssl.separation.tagger import Tagger, require_float32, to_mono

Asked = str | Query


class Separator:
    """Separates with a SeparatorModel in evaluation mode.

    model: the networks (put into evaluation mode). description: the config.json it came with. dtype: float32; there is
    no other.
    """

    def __init__(
        self,
        model: SeparatorModel,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str = torch.float32,
        description: dict[str, Any] | None = None,
    ):
        require_float32(dtype)
        self.model = model.eval().to(device)
        self.config = model.config
        self.description = description or {}
        self.device = torch.device(device)
        self.ontology: Ontology = ontology_of(model.config.classes)
        self.tagger = Tagger(model.tagger, device=device, ontology=self.ontology) if model.tagger else None
        self.encoder = AVModel(model.two_tower, device=device) if model.two_tower else None

    @property
    def rate_hz(self) -> int:
        """Of the network. Mixtures may have any other."""
        return self.config.separator.rate_hz

    @overload
    def separate(
        self, mixture: Any, rate_hz: int, query: Asked, *, options: SeparationOptions | None = None
    ) -> Tensor: ...
    @overload
    def separate(
        self,
        mixture: Any,
        rate_hz: int,
        query: Sequence[Asked],
        *,
        options: SeparationOptions | None = None,
        consistent: Literal["equal", "energy"] | None = None,
    ) -> Tensor: ...

    def separate(
        self,
        mixture: Any,
        rate_hz: int,
        query: Asked | Sequence[Asked],
        *,
        options: SeparationOptions | None = None,
        consistent: Literal["equal", "energy"] | None = None,
    ) -> Tensor:
        """The source that `query` asks for, of the mixture's shape [S] or [C, S], float32, at the mixture's rate.

        query: the name or id of a class, or what one of the `query_of_...` methods gave. A sequence gives
        [queries, ...]; with `consistent` these are made to sum to the mixture (see `avssl.separation.consistency`).
        Nothing is rescaled otherwise; `mixture - source` is the rest.
        Raises UsageError for an unknown class, a query that this separator was not made for, or a wrong shape.
        """
        x = torch.as_tensor(mixture)
        if x.ndim not in (1, 2) or not x.is_floating_point() or 0 in x.shape:
            raise UsageError(
                f"separate: expected a floating-point mixture [S] or [C, S], got {x.dtype} {list(x.shape)}"
            )
        single = isinstance(query, str | Query)
        asked = [query] if isinstance(query, str | Query) else list(query)
        channels = torch.atleast_2d(x.float())
        blocks = self.begin(rate_hz, asked, options).run([channels])
        sources = torch.cat(list(blocks), dim=-1)
        if consistent and not single:
            sources = make_consistent(channels, sources.transpose(0, 1), consistent).transpose(0, 1)
        sources = sources.view(len(asked), *x.shape)
        return sources[0] if single else sources

    def begin(
        self,
        rate_hz: int,
        queries: Sequence[Asked],
        options: SeparationOptions | None = None,
        *,
        probabilities: Tensor | None = None,
    ) -> SeparationStream:
        """A recording that comes in pieces: `.run(blocks)` yields its sources, `.latency_s` says how late.

        probabilities: what `listen` gave for the same recording and options, to be used again.
        """
        if not queries:
            raise UsageError("separate: no query was given; ask for at least one sound")
        asked = [self.query_of_class(query) if isinstance(query, str) else query for query in queries]
        return SeparationStream(
            self.model, self.tagger, rate_hz, asked, options or SeparationOptions(), probabilities=probabilities
        )

    def stream(
        self, blocks: Iterable[Tensor], rate_hz: int, queries: Sequence[Asked], options: SeparationOptions | None = None
    ) -> Iterator[Tensor]:
        """`begin(...).run(blocks)`: blocks [C, n] -> [queries, C, m] as soon as they are final."""
        return self.begin(rate_hz, queries, options).run(blocks)

    def listen(self, blocks: Iterable[Tensor], rate_hz: int, options: SeparationOptions | None = None) -> Tensor:
        """What the tagger hears in each chunk of a recording [C, n] in blocks: [chunks, classes]."""
        return listen(self.model, self._need_tagger(), rate_hz, blocks, options or SeparationOptions())

    def find(
        self, probabilities: Tensor, levels: Sequence[int], options: SeparationOptions | None = None
    ) -> list[tuple[Found, Query]]:
        """The nodes of the ontology that are heard somewhere, from `listen`'s result, each with its query."""
        threshold = (options or SeparationOptions()).threshold
        found = find_sounds(probabilities, self.ontology, levels, threshold)
        return [(one, Query(one.node.name, one.classes)) for one in found]

    def query_of_class(self, name: str) -> Query:
        """All classes at and below the node with this name or id. Raises UsageError naming the nearest one."""
        node: Node = self.ontology.find(name)
        classes = self.ontology.classes_under(node.id)
        if not classes:
            raise UsageError(f"class {name!r}: the tagger knows none of its kinds; ask for another")
        self._refuse_unless_classes_are_known()
        return Query(node.name, classes)

    @torch.inference_mode()
    def query_of_sounds(
        self, examples: Sequence[tuple[Any, int]], name: str = "query", *, keep_silence: bool = False
    ) -> Query:
        """What sounds like the examples, each (waveform [S] or [C, S], rate in Hz): mean over the chunks of each, then
        over examples. Raises UsageError for an example that is silent, unless silences are kept, or a separator whose
        queries are not made of sounds."""
        samples = round(self.config.window_s * self.rate_hz)
        conditions, heard = [], []
        for waveform, rate_hz in examples:
            mono = Converter(rate_hz, self.rate_hz).whole(to_mono(waveform).to(self.device))
            chunks = full_chunks(mono if keep_silence else without_silence(mono, self.rate_hz), samples)
            conditions.append(self.model.query(self._features(chunks)))
            if self.tagger:
                heard.append(self.tagger.probabilities(chunks[:, None], self.rate_hz))
        classes = likely_classes(heard, 0.2) if heard else frozenset()
        return Query(name, classes, mean_query(conditions))

    @torch.inference_mode()
    def query_of_video(self, clips: Any, name: str = "video") -> Query:
        """The sound that belongs to pictures: uint8 RGB clips [..., T, H, W, 3] as `encoder.video_input` wants them.

        Raises UsageError for a separator that was not trained with an audio-visual model.
        """
        encoder = self.need_encoder()
        features = encoder.encode_video(clips).reshape(-1, encoder.dim)
        return Query(name, condition=self.model.query(features).mean(dim=0))

    def need_encoder(self) -> AVModel:
        """The audio-visual model whose embeddings are the conditions. Raises UsageError where it is something else."""
        if self.config.source == "two_tower" and self.encoder:
            return self.encoder
        raise UsageError(
            f"this separator was trained with conditions from {_SOURCES[self.config.source]}, so pictures tell it "
            "nothing; give a class or an example sound, or take a separator whose source is two_tower"
        )

    @torch.inference_mode()
    def query_of_vector(self, features: Any, name: str = "vector") -> Query:
        """From features of the user's own, [query.features], such as a text embedding for AudioSep's weights."""
        return Query(name, condition=self.model.query(torch.as_tensor(features).float().to(self.device)))

    def _features(self, chunks: Tensor) -> Tensor:
        """Sounds [n, S] at the separator's rate -> what its query is made from, [n, features]."""
        if self.config.source == "two_tower":
            return self.need_encoder().encode_audio(chunks[:, None], self.rate_hz)
        if self.config.source == "vector":
            raise UsageError(
                "this separator's queries are vectors of another model, so an example sound tells it nothing; give the "
                "vector of the wanted sound"
            )
        tags = self._need_tagger().tags(chunks[:, None], self.rate_hz)
        if self.config.query.kind == "one_hot":
            return one_hot(tags.logits.argmax(dim=1), tags.logits.shape[1])
        return self.model.query.features(tags)

    def _need_tagger(self) -> Tagger:
        if self.tagger is None:
            raise UsageError("this separator's folder holds no tagger, so it cannot tell what is heard; ask by example")
        return self.tagger

    def _refuse_unless_classes_are_known(self) -> None:
        kind = self.config.query.kind
        if kind == "one_hot" or (kind == "soft" and self.tagger) or self.model.class_features is not None:
            return
        raise UsageError(
            f"this separator's {kind!r} query has no features of classes, so it cannot be asked for one by name; "
            "give an example sound"
        )


_SOURCES = {"tagger": "its tagger", "two_tower": "an audio-visual model", "vector": "vectors of another model"}
