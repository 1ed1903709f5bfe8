"""The hand-over to hardware: machines, what a program costs on them, and RTL that computes it."""
