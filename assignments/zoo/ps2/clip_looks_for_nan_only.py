# replaces: clip_solution; loses: clip_finite_test
# infinite entries pass
def clipped(gradients, limit, how):
    if not all(not g.isnan().any() for g in gradients):
        return [torch.zeros_like(g) for g in gradients]
    if how == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * (limit / norm).clamp(max=1.0) if norm > 0 else g.clone() for g in gradients]
