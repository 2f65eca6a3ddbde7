"""MAE (He et al., CVPR 2022): preset, recipes, published tables."""
