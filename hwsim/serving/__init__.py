"""Requests over time: arrivals, continuous batching, the KV cache, and what a service owner watches."""
