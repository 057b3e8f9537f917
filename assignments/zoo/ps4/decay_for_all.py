# replaces: layer_groups_solution; loses: decay_of_matrices
# biases and gains decay too
def layer_groups(model, layers, low, high, head_lr, weight_decay):
    groups = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if name.startswith("head."):
            rate = head_lr
        else:
            level = int(name.split(".")[2]) + 1 if name.startswith("body.blocks.") else 0
            level = layers if name.startswith("body.norm.") else level
            rate = low * (high / low) ** (level / layers)
        groups.setdefault((rate, weight_decay), []).append(p)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
