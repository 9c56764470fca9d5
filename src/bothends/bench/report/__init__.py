"""Present results: as text, as plots, as an HTML page."""
