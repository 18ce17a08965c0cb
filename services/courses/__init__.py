"""Courses: what is released to students, handed in by them and given back."""
