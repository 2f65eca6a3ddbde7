"""Networks: backbones, heads, where the mask acts, momentum encoders, and what `plan` counts of them."""
