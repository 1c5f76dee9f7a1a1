"""From a store to batches of latents on the device."""
