"""The masks, one class each; `harness.spec.masking` has their union."""
