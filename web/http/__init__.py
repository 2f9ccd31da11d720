"""HTTP as all ports speak it: errors, responses, targets, bounds, units.

Knows no route, no key and no framework's request.
"""
