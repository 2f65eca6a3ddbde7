"""A2MIM (Li et al., ICML 2023) and its SimMIM baselines for CNNs: preset, recipes, fine-tunings, published tables."""
