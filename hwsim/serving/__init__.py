"""Requests over time: arrivals, continuous batching, the KV cache, and what a service owner watches."""

from hwsim.serving.drawn import drawn_requests
from hwsim.serving.requests import Requests, make_requests, read_trace
from hwsim.serving.served import Served
from hwsim.serving.service import Service, serve

__all__ = ["Requests", "Served", "Service", "drawn_requests", "make_requests", "read_trace", "serve"]
