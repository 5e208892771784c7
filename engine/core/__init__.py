"""Pure rules, standard library only: time, ids and randomness are arguments."""
