"""Judges prompts and classifier scores. It never loads a model and never imports torch.

Fails closed: what can't be judged isn't allowed. It knows nothing of jobs or of delivery.
"""
