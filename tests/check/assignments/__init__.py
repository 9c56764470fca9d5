"""Assignments of public courses: a contract, a solution, and a classic mistake for each."""
