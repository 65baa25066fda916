"""Picture checks in the engine's process: networks that look at finished pictures and give scores.

They see pixels and answer numbers, 0..1 by label; what follows from a number is safety's to say, in
the server. A check that fails, hangs or gives half an answer gives none: without its scores no
picture is allowed.
"""
