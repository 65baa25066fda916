"""Base models by family: how each encodes text, denoises once and decodes.

A family is an adapter over diffusers' component classes, so that one step loop runs them all. It
knows nothing of rows, samplers' histories or batching.
"""
