"""Makes the embedded model: draws scenes, describes them in words, trains on both, measures.

Not part of the installed package. It knows nothing of the server; what it hands over is a folder
of safetensors in diffusers' layout under ``src/calotype/models/``.
"""
