"""RMR as published (Zhang et al., AAAI 2024, doi:10.1609/aaai.v38i7.28536), to compare with. Nothing else needs it."""
