"""Calotype: a self-hosted, multi-tenant image-generation platform."""

__version__ = "0.1.0"
