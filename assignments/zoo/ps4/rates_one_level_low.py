# replaces: layer_groups_solution; loses: rates_of_blocks
# blocks counted from 0: the topmost never reaches its rate
def layer_groups(model, layers, low, high, head_lr, weight_decay):
    groups = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if name.startswith("head."):
            rate = head_lr
        else:
            level = int(name.split(".")[2]) if name.startswith("body.blocks.") else 0
            level = layers if name.startswith("body.norm.") else level
            rate = low * (high / low) ** (level / layers)
        groups.setdefault((rate, weight_decay if p.ndim >= 2 else 0.0), []).append(p)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
