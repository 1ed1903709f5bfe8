"""Vectors that prove a receiver's rescaling on any network, and their examination."""
