"""Separating sounds: where a class is heard, mixtures with a known answer, queries, overlapping windows, what is left,
how good it is, the ontology of sounds; and recordings of any length into folders (`recording`, `jobs`). The networks
are in `avssl.models` (`resunet30`, `cnn14`); `Separator` and `Tagger` are what `avssl.load` gives for their folders."""
