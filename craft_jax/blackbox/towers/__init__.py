"""The networks of a local CLIP, as pure functions over parameters."""
