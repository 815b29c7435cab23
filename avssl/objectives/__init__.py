"""Losses and their targets as plain tensor code: no files, no models, no processes.

`scores` makes temperature-scaled similarities and `candidates` says who is compared with whom. `xid` (softmax), `nce`
and `siglip` turn them into one loss a query; `weights`, `soft_targets` and `agreement` make them robust; `bank`
keeps a slow target for every row of the data set. `isogclr`, `hard_negatives` and `monitor` are options.
Everything computes in float32.
"""
