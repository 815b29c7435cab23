"""Towers, front ends, heads, the two-tower model, and the folder a trained one is kept in.

Import from the modules (`avssl.models.two_tower`, `avssl.models.folder`, …): most of them load torch.
"""
