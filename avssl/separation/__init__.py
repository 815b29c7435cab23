"""Separating sounds, as plain tensor code: where a class is heard, mixtures with a known answer, overlapping windows,
what is left, how good it is, and the ontology of sounds. The networks are in `avssl.models` (`resunet30`, `cnn14`)."""
