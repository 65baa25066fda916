"""The durable record: jobs, their append-only event logs, leases with fencing tokens, keys, notes.

The store is the truth; whatever is in memory elsewhere can be rebuilt from it. It knows nothing of
engines, of pictures' bytes, of policy or of HTTP: others decide, it records, and it refuses what
the tables of legal moves don't have. ``store.JobStore`` is the way in.
"""
