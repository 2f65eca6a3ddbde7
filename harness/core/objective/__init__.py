"""What is predicted, and the losses between prediction and target."""
