"""How pictures reach people: image formats, the object store, signed links.

It knows nothing of what a picture shows; it is only given pictures that were judged and signed.
"""
