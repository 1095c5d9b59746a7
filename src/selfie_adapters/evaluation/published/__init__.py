"""Configurations and result files of the published evaluations."""
