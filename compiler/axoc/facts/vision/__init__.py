"""Models that see: a tower over an image's patches, a projector, and a decoder that one of the families reads."""
