"""Clients of Kafka that lose nothing: a consumer, and connections that outlive their brokers' addresses.

Needs `org-events[kafka]`.
"""
