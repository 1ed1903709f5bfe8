"""Conformance vectors, which prove a receiver's rescaling on any network, and their examination."""
