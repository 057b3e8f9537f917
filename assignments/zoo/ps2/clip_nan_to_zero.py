# replaces: clip_solution; loses: clip_finite_test
# zeroes the bad entries and uses the rest of a broken update
def clipped(gradients, limit, how):
    gradients = [g.nan_to_num(0.0, 0.0, 0.0) for g in gradients]
    if how == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (limit / norm).clamp(max=1.0) if norm > 0 else g.clone() for g in gradients]
