"""Embeddings of windows of files, folders and shard sets, streamed to `.npz` or `.parquet`."""
