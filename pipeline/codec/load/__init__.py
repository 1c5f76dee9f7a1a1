"""From a published metagraph to a codec that gives latents."""
