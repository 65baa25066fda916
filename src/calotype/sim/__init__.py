"""Plays a day of traffic on a fleet in seconds, with the very policy that the server runs.

Discrete events on a heap, in virtual time. Only the engines, their loading and their costs are
simulated; whose turn it is and where comes from ``policy.line``, unchanged, so that what the
simulator says can't drift from what the server does. The same seed gives the same bytes.

It knows nothing of HTTP, databases, processes or torch.
"""
