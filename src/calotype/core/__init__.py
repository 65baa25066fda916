"""The nouns, events, decisions, states, errors and limits that every room speaks in.

Standard library only, and no I/O: a room may import this one without importing anything else of
Calotype. It knows nothing of HTTP beyond an error's status, and nothing of databases or tensors.
Only ``ids`` reads the clock and draws by chance: a new id is neither a fact nor a decision.
"""
