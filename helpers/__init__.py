"""The thin module behind the notebooks: paths, labels, images, datasets, models, training, evaluation, figures."""
