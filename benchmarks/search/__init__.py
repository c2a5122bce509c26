"""The study of searches: every recipe on three tasks at equal budgets."""
