"""Puts a mark into a model's decoder, so that it is in each picture that the decoder decodes.

The method is Stable Signature's (Fernandez 2023, arXiv:2303.15435), written anew from the paper. A
small network learns, against another that hides bits in pictures (HiDDeN; Zhu 2018,
arXiv:1807.09937), to read bits that attacks have gone over; the other is thrown away. Then the
model's decoder alone is taught to draw pictures in which that reader reads the bits of one key.

It is a process of its own (``python -m calotype.engine.marking``), started by ``calotype watermark
train``, and runs beside no engine. It knows nothing of keys' files, nor of what verdict a mark is.
"""
