# replaces: layer_groups_solution; loses: groups_complete
# takes frozen parameters along
def layer_groups(model, layers, low, high, head_lr, weight_decay):
    groups = {}
    for name, p in model.named_parameters():
        if name.startswith("head."):
            rate = head_lr
        else:
            level = int(name.split(".")[2]) + 1 if name.startswith("body.blocks.") else 0
            level = layers if name.startswith("body.norm.") else level
            rate = low * (high / low) ** (level / layers)
        groups.setdefault((rate, weight_decay if p.ndim >= 2 else 0.0), []).append(p)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
