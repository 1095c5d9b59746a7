"""How labels are written: here, in vLLM, or by a pool of processes."""
