"""HTTP: turns requests into calls of ``flow`` and answers into bodies. No rules of its own."""
