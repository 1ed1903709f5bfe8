"""The reference design in SystemVerilog, and the cocotb test that travels with it."""
