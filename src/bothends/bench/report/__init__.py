"""Present results as text, as plots, or as an HTML page."""
