"""Small files that outlive a process, written whole or not at all, and the heads of large ones.

For rooms that may not import each other and each keep a secret. It knows nothing of what a file is
for, or of where it lies.
"""
