METHODS = ("gradient", "average", "maximum", "laplacian", "wavelet", "guided", "copy")  # that make one fused image
COPY = "copy of "  # and the modality's name: how tables call the copies of single modalities
