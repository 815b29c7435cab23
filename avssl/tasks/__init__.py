"""Training tasks: each binds a model, an objective and the batch keys it needs. `registry` knows them by name."""
