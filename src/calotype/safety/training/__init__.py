"""Trains a picture check of an operator's own: a linear probe over a frozen encoder's rows.

It sees pictures as rows of numbers and a few facts; it reads no picture file and loads no network.
scikit-learn is needed here and nowhere that serves. What comes out is a folder for the registry.
"""
