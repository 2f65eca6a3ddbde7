"""The masks, one class each; `harness.spec.masks.masking` has their union."""
