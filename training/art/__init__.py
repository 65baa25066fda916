"""How a scene is painted: colours, sky, land, things and weather, each a layer over the last.

A layer takes a canvas (float32, height x width x 3, 0..1, sRGB) and paints on it in place. All
edges are anti-aliased and all shapes are in fractions of the picture, so that a scene looks the
same at any size. Knows nothing of captions, models or files.
"""
