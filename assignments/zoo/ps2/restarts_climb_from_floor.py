# replaces: restarts_solution; loses: restarts_first_test
# the climb knows of the floor
def lr_with_restarts(step, peak, floor, warmup, first, growth, shrink):
    if step < warmup:
        return floor + (peak - floor) * (step + 1) / warmup
    place, length, top = step - warmup, first, peak
    while place >= length:
        place, length, top = place - length, length * growth, top * shrink
    return floor + (top - floor) * 0.5 * (1 + math.cos(math.pi * place / length))
