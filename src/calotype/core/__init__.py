"""The nouns, events, decisions, states, errors and limits that every room speaks in.

Standard library only, and no I/O: a room may import this one without importing anything else of
Calotype. It knows nothing of HTTP, of databases, of tensors or of clocks.
"""
