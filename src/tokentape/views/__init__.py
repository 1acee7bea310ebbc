"""A tape in, text out. Views draw what :mod:`tokentape.study` tells; they know no model and never import torch."""
