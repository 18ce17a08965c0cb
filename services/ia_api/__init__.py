"""Sectra's Image Analysis API: nodes as apps behind the pathologist's right-click."""
