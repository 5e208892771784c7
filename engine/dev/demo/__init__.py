"""The main job on real input, judged by code that shares nothing with the product."""
