"""From a pretrained model and labelled files to a classifier: splits, heads, training of towers, report, protocols."""
