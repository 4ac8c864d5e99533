"""One test at least for each capability that the mission lists, named by its row."""
