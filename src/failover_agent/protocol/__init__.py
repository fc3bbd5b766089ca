"""SPEAKS. Pure: between JSON and what the core knows, and who may say it."""
