"""Image encoders and text encoders, one kind a file."""
