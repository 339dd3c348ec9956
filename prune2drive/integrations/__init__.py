"""Pruned models inside evaluation programs of others."""
