BASELINES = ("average", "maximum", "laplacian", "wavelet", "guided")
