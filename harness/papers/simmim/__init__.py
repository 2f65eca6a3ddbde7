"""SimMIM (Xie et al., CVPR 2022): preset, recipes, published tables and model sizes."""
