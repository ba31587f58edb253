"""The thin module behind the notebooks, from paths, labels and images to evaluation, export and deployment."""
