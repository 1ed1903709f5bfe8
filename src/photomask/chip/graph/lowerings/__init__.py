"""ATen operators → float operations, one small function each."""
