"""A file for each layout on disk, from its files to a `FewShotSet`."""
