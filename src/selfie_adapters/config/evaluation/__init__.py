"""Settings of the evaluation protocols, one file each."""
