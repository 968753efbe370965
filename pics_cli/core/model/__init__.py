"""The compositor: regions, interaction block, networks, sampling. Knows nothing of data files."""
