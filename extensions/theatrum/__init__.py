"""The notebook library: slides, questions and images inside a notebook."""
