"""Commands that compute runs, watch them and stop them."""
