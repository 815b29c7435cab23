"""Losses and their targets as plain tensor code: no ranks, no files, no models.

`scores` makes temperature-scaled similarities, `xid` (softmax) and `nce` turn scores into one loss a query, `bank`
keeps a slow target for every row of the data set, `in_batch` says which candidates of a batch are no negatives.
Everything computes in float32.
"""
