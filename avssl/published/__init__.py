"""Weights that others have published, brought into our model folders and back.

A layout (one file each, named in `registry`) knows the names and shapes of one kind of checkpoint; `convert` reads a
file, finds its layout, and writes the folder. Nothing in a published file is ever unpickled into objects.
"""
