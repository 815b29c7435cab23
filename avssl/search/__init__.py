"""Search by picture or sound: an index over embeddings, and queries that are clips, pictures or sounds."""
