"""One branch of tasks per backend server: its actor, its probes, who is a member.

Does not choose servers for requests.
"""
