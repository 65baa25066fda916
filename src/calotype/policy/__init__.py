"""Decides, and does nothing else: no clock, no I/O, no randomness, no asyncio.

``on(event, now) -> list[Decision]``: the server drives it with the real clock, the simulator with
a virtual one. It knows nothing of databases, processes or tensors.
"""
