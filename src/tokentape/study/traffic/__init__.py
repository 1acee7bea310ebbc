"""Requests before they are sent: when they are due, and how those came that production services recorded."""
