# replaces: clip_solution; loses: clip_finite_test
# skips one tensor and updates the others
def clipped(gradients, limit, how):
    gradients = [g if g.isfinite().all() else torch.zeros_like(g) for g in gradients]
    if how == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (limit / norm).clamp(max=1.0) if norm > 0 else g.clone() for g in gradients]
