"""Where a picture came from: the manifest, C2PA signing with our own chain, and reading it back.

It knows nothing of jobs' states or of where files are kept.
"""
