"""LoRAs (Hu 2021, arXiv:2106.09685): read, checked, and added to the forwards that ask for them.

A LoRA adds ``weight x alpha / rank x up(down(x))`` to the output of layers of the denoiser. It is
added to the output, for each forward by itself, and never mixed into shared weights; so rows with
different LoRAs, and with none, share a pass, and each gets the bits that it gets alone. The one
exception is ``merging``: a set that an engine is made for. It knows nothing of rows or messages
beyond a LoRA's name, path, build and weight.
"""
