"""360°: directions, flat views of equirectangular pictures, ambisonics. Tensors only, batched, on any device.

Coordinates are written down once, in `avssl.spatial.directions`. Like other parts, importing this package is cheap;
`config` and `draw` need no torch.
"""
