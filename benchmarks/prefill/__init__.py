"""What `prefill_attention.py` is made of: settings, the gate, the peers, the clock."""
