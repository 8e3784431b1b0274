"""Snapshot -> a person.

listing   the devices, as a table or as JSON
"""
