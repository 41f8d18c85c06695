"""The ground floor: what Weir knows and decides, without I/O."""
