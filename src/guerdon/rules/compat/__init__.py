"""Rules that repeat another system's number bit for bit, one module per system.

Each function takes what the original takes and returns what the original returns, its mistakes
included. Nothing here is meant to be right: the rules above this package are, and use these
functions only when asked with `compat=True`.
"""
