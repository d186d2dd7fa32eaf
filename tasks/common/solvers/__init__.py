"""Principal axes, logistic regression and folds."""
