"""From shards to batches on the device.

The way of a sample: `order` says which row comes when; `clips` says which moments of it; `dataset` decodes them in a
worker; `collate` makes the uint8 batch; `loader` hands it over and knows its exact position; `transforms` crops,
flips, jitters and normalises on the device. `config` holds the settings of all of these.
"""
