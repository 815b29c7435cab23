"""The training loop and all that belongs to a run: configuration, ranks, schedule, checkpoints, logs.

The only place that knows how ranks are launched. `config` imports no torch.
"""
