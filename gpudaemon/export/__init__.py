"""Snapshot -> outside: Prometheus text, HTTP and JSON, and the reference made of the metric table.

The only package that imports prometheus_client and aiohttp. Importing the package itself imports neither.
"""
