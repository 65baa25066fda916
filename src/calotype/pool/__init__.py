"""Engine processes: start, watch, feed, restart; and the registry of models they can load.

It knows nothing of jobs beyond the rows it carries, and never imports torch.
"""
