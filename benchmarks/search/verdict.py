def write(done):
    pass
