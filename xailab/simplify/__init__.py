"""Can it be simpler? One file per way to make a network smaller."""
