def write_model(*a): pass
