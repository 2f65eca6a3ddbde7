"""Which units of an image are hidden: one function a kind of mask."""
