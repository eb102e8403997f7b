"""Tensors to pictures: colour, tiles, overlays, charts. Reads arrays, never the model."""
