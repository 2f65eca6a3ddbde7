"""Published results of semantic segmentation and detection with pre-trained encoders, of several papers."""
