"""What is predicted and how its error is counted: targets, losses, contrastive losses."""
