"""Processes that decode files of strangers and can do little else: see docs/reliability.md and SECURITY.md.

`child` runs a function in a limited process and takes its answers as plain data, `confine` is what limits it, and
`decoder` opens media there.
"""
