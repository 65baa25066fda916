"""HTTP: turns requests into calls of ``flow`` and answers into bodies. No rules of its own.

What may be asked and by whom is decided in ``flow``; here is only what HTTP itself needs: types of
a body, status codes, headers, streams, and the one form that every error has (RFC 9457).
"""
