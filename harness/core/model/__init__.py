"""Encoders of timm's families, the corruption of their input, heads and decoders, parameters and multiply-adds."""
