"""Pixels over HTTP: readers, pyramids, codecs and the Tornado application."""
