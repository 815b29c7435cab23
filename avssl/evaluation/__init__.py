"""How good is a set of embeddings: retrieval across modalities, classes by nearest neighbours, always beside chance."""
