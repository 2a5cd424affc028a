"""How the fused image is made of the modalities."""
