"""Degradations of a scan, drawn at the end of nnU-Net's training pipeline. Images are normalised, hence signed.

By default training draws noise, blur and Fourier damage; bias fields, ghosts, low resolution and spikes are there
to be switched on (setting degradation_probabilities). Motion and gamma stay out for good: tests need kinds of damage
that no model of this package was trained on (evaluation/scan_degradations). See docs/degradations.md.
"""
